#include "tools/usage_report.h"

#include <apikey/apikey.h>

#include <algorithm>
#include <limits>
#include <map>
#include <vector>

namespace apikeyd {

namespace {

/// Sums of what a store may hold do not wrap around.
void add_to(uint64_t& sum, uint64_t count) {
    sum = count > std::numeric_limits<uint64_t>::max() - sum ? std::numeric_limits<uint64_t>::max()
                                                             : sum + count;
}

struct Counts {
    uint64_t allowed = 0;
    uint64_t denied = 0;
    int64_t last_used_s = 0;
};

/// Takes keys' counts in the order of their steps and makes lines of them: of each key, or of each group in
/// each step.
class KeyLines {
  public:
    KeyLines(const UsageQuestion& question, Printer& printer, OutputForm form)
        : question_(question), list_(printer, form, names()) {
        if (question_.group_by != GroupBy::kKey) {
            sums_.resize(question_.keys->by_name().size());
        }
    }

    void take(int64_t start_s, const std::string& key_id, const Counts& counts) {
        const std::optional<uint32_t> group = question_.keys != nullptr ? question_.keys->find(key_id) : 0;
        if (!group) {
            return;
        }
        if (sums_.empty()) {
            add_line(start_s, key_id, counts);
            return;
        }
        if (question_.each_step && start_s != start_s_) {
            add_groups();
        }
        start_s_ = start_s;
        Counts& sum = sums_[*group];
        add_to(sum.allowed, counts.allowed);
        add_to(sum.denied, counts.denied);
        sum.last_used_s = std::max(sum.last_used_s, counts.last_used_s);
    }

    void end() {
        add_groups();
        list_.end();
    }

  private:
    std::vector<std::string_view> names() const {
        std::vector<std::string_view> names;
        if (question_.each_step) {
            names.emplace_back("start");
        }
        names.insert(names.end(), {name_of_group(), "allowed", "denied"});
        if (!question_.stretch) {
            names.emplace_back("last_used");
        }
        return names;
    }
    std::string_view name_of_group() const {
        return question_.group_by == GroupBy::kKey     ? "id"
               : question_.group_by == GroupBy::kOwner ? "owner"
                                                       : "plan";
    }

    void add_line(int64_t start_s, const std::string& name, const Counts& counts) {
        Record record;
        if (question_.each_step) {
            record.push_back({"start", Time{start_s}});
        }
        record.push_back({name_of_group(), text_or_none(name)});
        record.push_back({"allowed", counts.allowed});
        record.push_back({"denied", counts.denied});
        if (!question_.stretch) {
            record.push_back(
                {"last_used", counts.last_used_s != 0 ? Value(Time{counts.last_used_s}) : Value()});
        }
        list_.add(record);
    }

    void add_groups() {
        if (sums_.empty()) {
            return;
        }
        for (const auto& [name, number] : question_.keys->by_name()) {
            if (sums_[number].allowed != 0 || sums_[number].denied != 0) {
                add_line(start_s_, name, sums_[number]);
            }
        }
        std::fill(sums_.begin(), sums_.end(), Counts{});
    }

    const UsageQuestion& question_;
    ListPrinter list_;
    int64_t start_s_ = 0;
    std::vector<Counts> sums_;  // by group; empty where each key is a line
};

class Report {
  public:
    Report(UsageReader& reader, const UsageQuestion& question, OutputForm form)
        : reader_(reader), question_(question), form_(form) {}

    Outcome print_it(const UsageNotes& notes) {
        const bool json = form_ == OutputForm::json;
        if (json) {
            const auto word = [](bool value) { return std::string(value ? "true" : "false"); };
            printer_.add(R"({"complete":)" + word(notes.complete) + R"(,"unflushed":)" +
                         (notes.unflushed ? std::to_string(*notes.unflushed) : "null") +
                         (question_.stretch ? R"(,"partial":)" + word(notes.partial) : ""));
        }
        Result<void> read;
        if (question_.with_keys) {
            printer_.add(json ? R"(,")" + std::string(name_of_keys()) + R"(":)" : "");
            read = print_keys();
        }
        if (read && question_.with_codes && (form_ != OutputForm::csv || !question_.with_keys)) {
            printer_.add(json ? R"(,"codes":)" : question_.with_keys ? "\n" : "");
            read = question_.stretch ? print_code_steps() : print_code_totals();
        }
        if (!read) {
            return failed(Exit::kUnreachable, read.error());
        }
        printer_.add(json ? "}\n" : "");
        return printer_.end();
    }

  private:
    std::string_view name_of_keys() const {
        return question_.group_by == GroupBy::kKey     ? "keys"
               : question_.group_by == GroupBy::kOwner ? "owners"
                                                       : "plans";
    }

    Result<void> print_keys() {
        KeyLines lines(question_, printer_, form_);
        const auto take = [&](const KeyRollup& one) {
            lines.take(one.start_s, one.key_id, {one.allowed, one.denied, 0});
        };
        Result<void> read;
        if (!question_.stretch) {
            read = reader_.for_each_total([&](const KeyTotal& one) {
                lines.take(0, one.key_id, {one.allowed, one.denied, one.last_used_s});
            });
        } else if (question_.each_step || question_.group_by != GroupBy::kKey) {
            read = reader_.for_each_rollup(*question_.stretch, take);  // a group needs no order of keys
        } else {
            read = reader_.for_each_sum(*question_.stretch, take);
        }
        lines.end();
        return read;
    }

    bool wanted(const CodeCount& one) const { return !question_.code || *question_.code == one.code; }
    static const char* name_of(const CodeCount& one) {
        return apikey_code_name(static_cast<apikey_code>(one.code));
    }

    Result<void> print_code_totals() {
        const auto codes = reader_.codes();
        if (!codes) {
            return tl::unexpected(codes.error());
        }
        if (form_ != OutputForm::json) {
            print_code_list(*codes);
            return {};
        }
        Record by_code;
        for (const CodeCount& one : *codes) {
            if (wanted(one)) {
                by_code.push_back({name_of(one), one.total});
            }
        }
        printer_.add(json_object(by_code));
        return {};
    }

    void print_code_list(const std::vector<CodeCount>& codes) {
        ListPrinter list(printer_, form_, {"code", "total"});
        for (const CodeCount& one : codes) {
            if (wanted(one)) {
                list.add({{"code", std::string(name_of(one))}, {"total", one.total}});
            }
        }
        list.end();
    }

    Result<void> print_code_steps() {
        if (!question_.each_step) {
            std::map<uint8_t, uint64_t> sums;
            Result<void> read = reader_.for_each_code_rollup(*question_.stretch, [&](const CodeRollup& one) {
                add_to(sums[one.count.code], one.count.total);
            });
            std::vector<CodeCount> codes;
            for (const auto& [code, total] : sums) {
                codes.push_back({code, total});
            }
            print_code_list(codes);
            return read;
        }
        ListPrinter list(printer_, form_, {"start", "code", "total"});
        Result<void> read = reader_.for_each_code_rollup(*question_.stretch, [&](const CodeRollup& one) {
            if (wanted(one.count)) {
                list.add({{"start", Time{one.start_s}},
                          {"code", std::string(name_of(one.count))},
                          {"total", one.count.total}});
            }
        });
        list.end();
        return read;
    }

    UsageReader& reader_;
    const UsageQuestion& question_;
    OutputForm form_;
    Printer printer_;
};

}  // namespace

Outcome print_usage(UsageReader& reader, const UsageQuestion& question, const UsageNotes& notes,
                    OutputForm form) {
    return Report(reader, question, form).print_it(notes);
}

}  // namespace apikeyd
