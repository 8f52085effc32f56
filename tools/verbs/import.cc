// import: keys of another system, or of `export`, all of them or none.

#include <string.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <memory>

#include "base/errno_text.h"
#include "base/file_io.h"
#include "tools/import_rows.h"
#include "tools/key_change.h"
#include "tools/new_key.h"
#include "tools/progress.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

constexpr size_t kImportBytesMax = size_t{1} << 30;
constexpr const char* kNothingImported = "nothing was imported";

struct ImportOptions {
    std::string form = "jsonl";
    bool allow_weak = false;
};

/// All of it: what is wrong in the last line keeps the first from being imported. Grown in steps that are
/// wiped, since there may be plaintexts in it.
tl::expected<std::string, Failure> read_standard_input() {
    std::string text;
    constexpr size_t kStep = size_t{1} << 20;
    for (size_t have = 0;;) {
        if (have == text.size()) {
            std::string larger(std::max(2 * have, kStep), '\0');
            larger.replace(0, have, text);
            explicit_bzero(text.data(), text.size());
            text = std::move(larger);
        }
        const ssize_t got = read_all(STDIN_FILENO, text.data() + have, text.size() - have);
        if (got < 0) {
            return failed(Exit::kUnreachable, "standard input: cannot read: " + errno_text(errno));
        }
        have += static_cast<size_t>(got);
        if (have > kImportBytesMax) {
            return failed(Exit::kNo, "standard input: more than " + std::to_string(kImportBytesMax >> 20) +
                                         " MiB (import it in parts)");
        }
        if (have < text.size()) {
            text.resize(have);
            return text;
        }
    }
}

/// Into the set, where all of them must fit. Of more than the daemon is told one by one only so many come
/// back that this shows.
tl::expected<std::vector<Change>, Failure> put_rows(KeySet& set, std::deque<ImportedRow> rows) {
    Faults faults;
    std::vector<Change> changes;
    Progress progress("keys", rows.size());
    for (size_t done = 0; !rows.empty(); ++done) {
        progress.at(done);
        ImportedRow one = std::move(rows.front());
        rows.pop_front();
        const auto there = set.key(one.row.id);
        if (there && *there) {
            faults.add(import_place(one.line) + "id " + one.row.id + ": a key of the set has it");
            continue;
        }
        if (const Result<void> put = there ? set.upsert(one.row) : tl::unexpected(there.error()); !put) {
            faults.add(import_fault(one.line, put.error().message));
            continue;
        }
        if (changes.size() <= kToldMax) {
            changes.push_back({Change::Kind::kUpsert, std::move(one.row)});
        }
    }
    if (!faults.empty()) {
        return failed(Exit::kNo, faults.text(kNothingImported));
    }
    return changes;
}

std::deque<ImportedRow> read_rows(std::string& text, const ImportOptions& options, Faults& faults) {
    Progress progress("records read");
    return read_import(text, options.form == "csv" ? ImportForm::kCsv : ImportForm::kJsonLines,
                       options.allow_weak, faults, [&](size_t records) { progress.at(records); });
}

Outcome import_keys(const Context& context, const ImportOptions& options) {
    if (Outcome guarded = guard_plaintext(); !guarded) {
        return guarded;
    }
    auto text = read_standard_input();
    if (!text) {
        return tl::unexpected(text.error());
    }
    Faults faults;
    std::deque<ImportedRow> rows = read_rows(*text, options, faults);
    if (!faults.empty()) {
        return failed(Exit::kNo, faults.text(kNothingImported));
    }
    const size_t count = rows.size();
    const KeyEdit edit = [&](KeySet& set) { return put_rows(set, std::move(rows)); };
    Outcome changed = change_keys(context, edit, true);
    if (changed) {
        say(std::to_string(count) + " keys imported");
    }
    return changed;
}

}  // namespace

Verb add_import(CommandLine& line) {
    auto options = std::make_shared<ImportOptions>();
    Command command = line.add_verb("import", "take over keys from standard input, all of them or none");
    command.add_choice("--form", options->form, {"csv", "jsonl"},
                       "of the text: CSV, or a JSON object a line");
    command.add_flag("--allow-weak", options->allow_weak,
                     "take plaintexts too that have fewer than 128 random bits");
    command.set_example("apikeyctl import --form csv < keys.csv");
    return {command, [options](const Context& context) { return import_keys(context, *options); }};
}

}  // namespace apikeyd
