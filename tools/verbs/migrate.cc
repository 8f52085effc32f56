// migrate: all of one store into another, or nothing.

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>

#include "shm/sha256.h"
#include "source/row_text.h"
#include "source/yaml_events.h"
#include "tools/faults.h"
#include "tools/key_change.h"
#include "tools/progress.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

constexpr const char* kNothingCopied = "nothing was copied";

struct MigrateOptions {
    std::string from;
    std::string to;
    bool merge = false;
};

/// What a row says, shortened: 16 bytes a key to find it again in the copy, whatever the store.
using Mark = std::array<uint8_t, 16>;

Mark mark_of(const KeyRow& row) {
    const std::string text = flow_key_row(row);
    std::array<uint8_t, apikey::shm::kDigestLength> digest{};
    apikey::shm::sha256_kernel().hash(text.data(), text.size(), digest.data());
    Mark mark{};
    std::copy_n(digest.begin(), mark.size(), mark.begin());
    return mark;
}

template <typename Row>
std::string_view name_of(const Row& row) {
    if constexpr (std::is_same_v<Row, std::string>) {
        return row;
    } else {
        return row.name;
    }
}

/// Rows that are in `wanted` and not in `there`; one that is there and says something else is a fault.
template <typename Row>
std::vector<Row> missing_of(std::string_view noun, const std::vector<Row>& wanted,
                            const std::vector<Row>& there, Faults& faults) {
    std::map<std::string_view, const Row*> by_name;
    for (const Row& row : there) {
        by_name.emplace(name_of(row), &row);
    }
    std::vector<Row> missing;
    for (const Row& row : wanted) {
        const auto found = by_name.find(name_of(row));
        if (found == by_name.end()) {
            missing.push_back(row);
        } else if (*found->second != row) {
            faults.add(std::string(noun) + " " + yaml_quote(name_of(row)) +
                       ": the target has one of this name that says something else");
        }
    }
    return missing;
}

PolicySet missing_policies(const PolicySet& wanted, const PolicySet& there, Faults& faults) {
    return {missing_of("scope", wanted.scopes, there.scopes, faults),
            missing_of("plan", wanted.plans, there.plans, faults),
            missing_of("owner", wanted.owners, there.owners, faults)};
}

class Migration {
  public:
    Migration(const StoreName& from, const StoreName& to, bool merge)
        : source_(make_source(from)), to_(to), merge_(merge) {}

    /// Reads what stands beside the keys: they come in after it, and a store hands it out last.
    Outcome look() {
        const auto content = source_->load(std::nullopt, [](const KeyRow&) {});
        if (!content) {
            return failed(Exit::kUnreachable, content.error());
        }
        first_ = **content;
        return {};
    }

    /// Into the target, in its transaction.
    Outcome copy(KeySet& set) {
        const Result<bool> has_keys = set.has_keys();
        if (!has_keys) {
            return failed(Exit::kUnreachable, has_keys.error());
        }
        if (!merge_ && (*has_keys || set.policies() != PolicySet{})) {
            return failed(Exit::kNo, to_.shown() +
                                         ": holds keys, plans, owners or scopes already (name another, or "
                                         "have --merge add what it lacks); " +
                                         kNothingCopied);
        }
        const PolicySet missing = missing_policies(first_.policies, set.policies(), faults_);
        if (faults_.empty()) {
            if (const Result<void> added = set.add_policies(missing); !added) {
                faults_.add(added.error().message);
            }
        }
        // With a plan or a scope less each key that has it would be a fault, too.
        return faults_.empty() ? copy_keys(set) : failed(Exit::kNo, faults_.text(kNothingCopied));
    }

    /// That the target, read anew, says what was read of the source.
    Outcome verify() {
        size_t found = 0;
        std::vector<bool> seen(marks_.size());
        Progress progress("keys compared", marks_.size());
        uint64_t done = 0;
        std::sort(marks_.begin(), marks_.end());
        const auto content = make_source(to_)->load(std::nullopt, [&](const KeyRow& row) {
            progress.at(++done);
            const Mark mark = mark_of(row);
            const auto there = std::lower_bound(marks_.begin(), marks_.end(), mark);
            const auto at = static_cast<size_t>(there - marks_.begin());
            if (there != marks_.end() && *there == mark && !seen[at]) {
                seen[at] = true;
                ++found;
            }
        });
        if (!content) {
            return failed(Exit::kUnreachable, content.error());
        }
        const size_t others = static_cast<size_t>((*content)->keys) - found;
        Faults policies;
        const bool same = missing_policies(first_.policies, (*content)->policies, policies) == PolicySet{};
        if (found != marks_.size() || !same || !policies.empty() || (!merge_ && others != 0)) {
            return failed(Exit::kNo,
                          to_.shown() + ": read again it says something else than what was copied into it: " +
                              std::to_string(marks_.size() - found) + " keys are missing or changed, " +
                              std::to_string(others) + " are others (did somebody change it meanwhile?)");
        }
        return {};
    }

    [[nodiscard]] std::string counts() const {
        return std::to_string(marks_.size()) + " keys, " + std::to_string(first_.policies.plans.size()) +
               " plans, " + std::to_string(first_.policies.owners.size()) + " owners and " +
               std::to_string(first_.policies.scopes.size()) + " scopes";
    }

  private:
    Outcome copy_keys(KeySet& set) {
        Progress progress("keys", first_.keys);
        uint64_t done = 0;
        const auto content = source_->load(std::nullopt, [&](const KeyRow& row) {
            progress.at(++done);
            copy_key(set, row);
        });
        if (!content) {
            return failed(Exit::kUnreachable, content.error());
        }
        if ((*content)->policies != first_.policies) {
            return failed(Exit::kNo, source_->place() +
                                         ": its plans, owners or scopes were changed while it was read "
                                         "(try again); " +
                                         kNothingCopied);
        }
        for (const std::string& row :
             (*content)->left_out != 0 ? (*content)->warnings : std::vector<std::string>()) {
            faults_.add(row);
        }
        return faults_.empty() ? check_source((*content)->fingerprint)
                               : failed(Exit::kNo, faults_.text(kNothingCopied));
    }

    /// While the copy can still be taken back: what came into the source since is not in it, a revocation for
    /// instance.
    Outcome check_source(const Fingerprint& copied) {
        const auto now = source_->load(copied, [](const KeyRow&) {});
        if (now && !*now) {
            return {};
        }
        return failed(Exit::kNo, source_->place() +
                                     ": was changed while it was copied (put an end to changes, "
                                     "then migrate again); " +
                                     kNothingCopied);
    }

    void copy_key(KeySet& set, const KeyRow& row) {
        const auto there = set.key(row.id);
        if (!there) {
            return faults_.add(there.error().message);
        }
        if (*there && **there != row) {
            return faults_.add("key " + row.id + ": the target has one of this id that says something else");
        }
        if (const Result<void> put = set.upsert(row); !put) {
            return faults_.add(put.error().message);
        }
        marks_.push_back(mark_of(row));
    }

    std::unique_ptr<Source> source_;
    StoreName to_;
    bool merge_;
    SourceContent first_;
    Faults faults_;
    std::vector<Mark> marks_;
};

Outcome migrate(const Context& context, const MigrateOptions& options) {
    const Result<StoreName> from = store_named(options.from);
    const Result<StoreName> to = store_named(options.to);
    if (!from || !to) {
        return failed(Exit::kUsage, from ? "TO: " + to.error().message : "FROM: " + from.error().message);
    }
    if (same_place(*from, *to)) {
        return failed(Exit::kUsage, "TO: is FROM");
    }
    Migration migration(*from, *to, options.merge);
    if (Outcome looked = migration.look(); !looked) {
        return looked;
    }
    const StoreEdit edit = [&](KeySet& set) { return migration.copy(set); };
    if (Outcome changed = change_store(context, *to, edit); !changed) {
        return changed;
    }
    if (Outcome verified = migration.verify(); !verified) {
        return verified;
    }
    say(to->text() + ": " + migration.counts() + " of " + from->text());
    return {};
}

}  // namespace

Verb add_migrate(CommandLine& line) {
    auto options = std::make_shared<MigrateOptions>();
    Command command = line.add_verb("migrate", "copy all of one store into another, or nothing");
    command.add_required("FROM", options->from,
                         "the store to read, yaml:PATH, sqlite:PATH or postgresql://HOST/DATABASE");
    command.add_required("TO", options->to, "the store to fill, made where there is none");
    command.add_flag("--merge", options->merge, "into one that holds something, too: add what it lacks");
    command.set_example("apikeyctl migrate yaml:/etc/apikeyd/keys.yaml sqlite:/var/lib/apikeyd/keys.db");
    return {command, [options](const Context& context) { return migrate(context, *options); }};
}

}  // namespace apikeyd
