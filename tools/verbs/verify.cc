// verify: keys on standard input, answered as a server on this host would answer them, and counted like that.

#include <string.h>
#include <unistd.h>

#include <cerrno>

#include "base/errno_text.h"
#include "tools/new_key.h"
#include "tools/validator.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

/// Lines of standard input, with at most one plaintext in memory at a time besides what read() brought.
class KeyLines {
  public:
    ~KeyLines() {
        explicit_bzero(chunk_, sizeof chunk_);
        explicit_bzero(line_, sizeof line_);
    }

    /// The next line into line(): false at the end. Of a line longer than any key, only so much is kept that
    /// it stays too long.
    tl::expected<bool, Failure> next() {
        length_ = 0;
        while (true) {
            if (at_ == end_) {
                const ssize_t got = read(STDIN_FILENO, chunk_, sizeof chunk_);
                if (got < 0 && errno == EINTR) {
                    continue;
                }
                if (got < 0) {
                    return failed(Exit::kUsage, "standard input: cannot read: " + errno_text(errno));
                }
                if (got == 0) {
                    return length_ > 0;
                }
                at_ = 0;
                end_ = static_cast<size_t>(got);
            }
            const char c = chunk_[at_++];
            if (c == '\n') {
                length_ -= length_ > 0 && line_[length_ - 1] == '\r' ? 1 : 0;  // a file from elsewhere
                return true;
            }
            if (length_ < sizeof line_) {
                line_[length_++] = c;
            }
        }
    }
    [[nodiscard]] const char* line() const { return line_; }
    [[nodiscard]] size_t length() const { return length_; }

  private:
    char chunk_[4096];
    size_t at_ = 0;
    size_t end_ = 0;
    char line_[APIKEY_KEY_MAX + 1];
    size_t length_ = 0;
};

const char* reason(apikey_code code) {
    switch (code) {
        case APIKEY_VALID:
            return "accepted";
        case APIKEY_MALFORMED:
            return "mistyped or cut off: its checksum is wrong, or it is empty or too long";
        case APIKEY_NOT_FOUND:
            return "no such key in the table";
        case APIKEY_REVOKED:
            return "revoked for ever";
        case APIKEY_DISABLED:
            return "disabled until it is enabled again";
        case APIKEY_EXPIRED:
            return "its time is over";
        case APIKEY_UNAVAILABLE:
            return "there is no table to answer from";
        default:
            return "refused";
    }
}

struct Tally {
    size_t keys = 0;
    size_t valid = 0;
    bool unavailable = false;
};

Record answer(const Validator& validator, const KeyLines& lines, Tally& tally) {
    apikey_verdict verdict{};
    const apikey_code code = apikey_validate(validator.get(), lines.line(), lines.length(), &verdict);
    char buffer[APIKEY_DESCRIPTION_MAX];
    apikey_description known{};
    known.size = sizeof known;
    known.key_id = known.owner = known.environment = known.name = "";
    (void)apikey_describe(validator.get(), &verdict, buffer, sizeof buffer, &known);
    ++tally.keys;
    tally.valid += code == APIKEY_VALID ? 1 : 0;
    tally.unavailable = tally.unavailable || code == APIKEY_UNAVAILABLE;
    const std::string id = verdict.key_id[0] != '\0' ? verdict.key_id : known.key_id;
    return {{"code", std::string(apikey_code_name(code))},
            {"id", text_or_none(id)},
            {"owner", text_or_none(known.owner)},
            {"environment", text_or_none(known.environment)},
            {"name", text_or_none(known.name)},
            {"expires", verdict.expires_at != 0 ? Value(Time{verdict.expires_at}) : Value()},
            {"stale", (verdict.flags & APIKEY_FLAG_STALE) != 0},
            {"counted", code != APIKEY_UNAVAILABLE && (verdict.flags & APIKEY_FLAG_NOT_COUNTED) == 0},
            {"reason", std::string(reason(code))}};
}

Outcome verify(const Context& context) {
    if (Outcome usable = context.check_config(); !usable) {
        return usable;
    }
    if (Outcome guarded = guard_plaintext(); !guarded) {
        return guarded;
    }
    const Validator validator = open_validator(context);
    if (validator == nullptr) {
        return failed(Exit::kUnreachable, context.instance_directory() + ": cannot be opened as an instance");
    }
    std::vector<Record> records;
    Tally tally;
    KeyLines lines;
    while (true) {
        const auto more = lines.next();
        if (!more) {
            return tl::unexpected(more.error());
        }
        if (!*more) {
            break;
        }
        records.push_back(answer(validator, lines, tally));
    }
    if (tally.keys == 0) {
        return failed(Exit::kUsage, "standard input: no key (want one a line: apikeyctl verify < key.txt)");
    }
    std::vector<std::string_view> names;
    for (const Field& field : records.front()) {
        names.push_back(field.name);
    }
    if (Outcome printed = print(format_list(context.output(), names, records)); !printed) {
        return printed;
    }
    if (tally.unavailable) {
        return failed(Exit::kUnreachable,
                      context.instance_directory() + ": " + validator_status(validator).text);
    }
    return tally.valid == tally.keys ? Outcome() : failed(Exit::kNo, "");
}

}  // namespace

Verb add_verify(CommandLine& line) {
    Command command = line.add_verb(
        "verify", "tell whether keys on standard input, one a line, are valid; counted like any use");
    command.set_example("apikeyctl verify < key.txt");
    return {command, verify};
}

}  // namespace apikeyd
