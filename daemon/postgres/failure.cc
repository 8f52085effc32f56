#include "postgres/failure.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "base/utf8.h"
#include "base/without_secrets.h"
#include "postgres/place.h"

namespace apikeyd {

namespace {

/// Of a message that comes from elsewhere.
constexpr size_t kShownBytesMax = 600;

bool mentions_any(std::string_view text, std::initializer_list<std::string_view> words) {
    return std::any_of(words.begin(), words.end(),
                       [&](std::string_view word) { return text.find(word) != std::string_view::npos; });
}

/// What to do about it, for what an operator can meet; empty: the server's own words say it.
std::string_view advice_by_sqlstate(std::string_view sqlstate) {
    struct Advice {
        std::string_view begins_with;  // of the SQLSTATE: its class or all of it
        std::string_view words;
    };
    static constexpr std::string_view kTablesMissing =
        "apikeyd's tables are not there, or not as this release knows them; have the database's owner run "
        "share/apikeyd/postgres_schema.sql of this release in it with psql";
    static constexpr std::string_view kComingOrGoing =
        "the server is starting, stopping or restarting; try again once it is up";
    static constexpr std::string_view kAtTheSameTime =
        "another transaction changed the same at the same time; try again";
    static constexpr std::string_view kNotRequested = "the server ended it; try again";
    static constexpr Advice kAdvice[] = {
        // the first that fits
        {"08",
         "the server, or a pooler before it, refused or broke the connection; check the URI and its log"},
        {"22", ""},
        {"23", ""},
        {"25006",
         "the server is read-only, perhaps a standby; name the primary in the URI, or all hosts and "
         "target_session_attrs=read-write"},
        {"25P02",
         "an earlier statement of the transaction failed, so all of it was taken back; see that error"},
        {"25P03", kNotRequested},
        {"28",
         "the server refused the user; check the user of the URI, its password file or certificate, and the "
         "server's pg_hba.conf"},
        {"3D000", "there is no such database; create it, or name another in the URI"},
        {"3F000", kTablesMissing},
        {"40001", kAtTheSameTime},
        {"40P01", kAtTheSameTime},
        {"42501",
         "the user lacks rights; GRANT it the role apikeyd_reader to read keys, apikeyd_writer to change "
         "them"},
        {"42703", kTablesMissing},
        {"42883", kTablesMissing},
        {"42P01", kTablesMissing},
        {"53300",
         "the server has no connection left; raise its max_connections, or close some that others hold"},
        {"53", "the server is short of disk, memory or another resource; see its log"},
        {"55P03", "a lock was not granted in time; end the transaction that holds it, or try again"},
        {"57014", "a time limit (statement_timeout) or an administrator ended it; raise that, or try again"},
        {"57P04", "the database was dropped; name another in the URI"},
        {"57P05", kNotRequested},
        {"57P", kComingOrGoing},
        {"P0001", ""},
    };
    for (const Advice& advice : kAdvice) {
        if (sqlstate.starts_with(advice.begins_with)) {
            return advice.words;
        }
    }
    return "unexpected failure of the server; see its log";
}

std::string_view advice(const PostgresFailure& failure) {
    switch (failure.kind) {
        case PostgresFailure::Kind::kServer:
            return advice_by_sqlstate(failure.sqlstate);
        case PostgresFailure::Kind::kNeedsPassword:
            return advice_by_sqlstate("28");
        case PostgresFailure::Kind::kNotReached:
            if (mentions_any(failure.text, {"SSL", "certificate", "private key"})) {
                return "TLS failed; check sslmode, sslrootcert, sslcert and sslkey of the URI, and the name "
                       "in "
                       "the server's certificate";
            }
            if (mentions_any(failure.text, {"hot standby mode", "session is "})) {
                return "a server is not of the kind that target_session_attrs of the URI wants; name the one "
                       "that is, or all";
            }
            return "cannot be reached; check that the server runs, and host and port of the URI";
        case PostgresFailure::Kind::kLost:
            return "the connection was lost; check the server and the network, then try again";
        case PostgresFailure::Kind::kSilent:
            return "does not answer; check whether the server hangs or is overloaded, and the network";
        case PostgresFailure::Kind::kStopped:
            return "given up";
        case PostgresFailure::Kind::kUnusable:
        case PostgresFailure::Kind::kNone:
            break;
    }
    return {};
}

}  // namespace

std::string shown_message(std::string_view message) {
    const std::string masked = without_secrets(message);  // before it is cut, or half a key might stay
    std::string_view text = masked;
    std::string line;
    bool space = false;
    while (!text.empty() && line.size() < kShownBytesMax) {
        char32_t code_point = 0;
        const size_t bytes = utf8_sequence(text, code_point);
        if (bytes == 0) {
            line += std::exchange(space, false) ? " ?" : "?";
        } else if (code_point == ' ' || misleads(code_point)) {
            space = !line.empty();
        } else {
            line.append(std::exchange(space, false) ? " " : "").append(text.substr(0, bytes));
        }
        text.remove_prefix(std::max<size_t>(bytes, 1));
    }
    return line.append(text.empty() ? "" : "...");
}

std::string without_guesses(std::string_view text) {
    std::string kept;
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        if (!line.starts_with('\t')) {
            kept.append(kept.empty() || line.empty() ? "" : "\n").append(line);
        }
        text.remove_prefix(std::min(text.size(), line.size() + 1));
    }
    return kept;
}

std::string first_line(std::string_view text) {
    return std::string(text.substr(0, text.find('\n')));
}

std::string postgres_store_named(std::string_view place) {
    return "key store postgresql:" + shown_place(place);
}

Error worded(std::string_view place, std::string_view doing, const PostgresFailure& failure) {
    std::string message = postgres_store_named(place).append(": ").append(doing).append(": ");
    const std::string text = shown_message(failure.text);
    const std::string by = failure.sqlstate.empty() ? "PostgreSQL" : "PostgreSQL " + failure.sqlstate;
    if (failure.kind == PostgresFailure::Kind::kNone) {
        message += "unexpected failure";
    } else if (const std::string_view words = advice(failure); words.empty()) {
        message += failure.sqlstate.empty() ? text : text + " (" + by + ")";
    } else {
        message.append(words).append(" (").append(by).append(": ").append(text).append(")");
    }
    if (failure.while_committing) {
        message += "; whether it was committed is not known: look before it is done again";
    }
    const bool of_what_was_asked = failure.sqlstate.starts_with("22") || failure.sqlstate.starts_with("23") ||
                                   failure.sqlstate == "P0001";
    return Error{std::move(message), !of_what_was_asked};
}

bool find_sqlstate(std::string_view text, PostgresFailure& failure) {
    constexpr std::string_view kBefore = ":  ";
    constexpr size_t kLength = 5;
    for (size_t at = text.find(kBefore); at != std::string_view::npos; at = text.find(kBefore, at + 1)) {
        const std::string_view rest = text.substr(at + kBefore.size());
        const std::string_view sqlstate = rest.substr(0, kLength);
        if (rest.substr(sqlstate.size()).starts_with(": ") &&
            std::all_of(sqlstate.begin(), sqlstate.end(),
                        [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); })) {
            const std::string_view primary = rest.substr(kLength + 2);
            failure.kind = PostgresFailure::Kind::kServer;
            failure.sqlstate = sqlstate;
            failure.text = primary.substr(0, primary.find('\n'));
            return true;
        }
    }
    return false;
}

}  // namespace apikeyd
