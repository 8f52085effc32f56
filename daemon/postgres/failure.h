// Why the server, or the way to it, failed, and what that means to an operator. Private to daemon/postgres.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace apikeyd {

/// Why something did not come about.
struct PostgresFailure {
    enum class Kind : uint8_t {
        kNone,
        kServer,         ///< the server says so, with an SQLSTATE
        kNotReached,     ///< by libpq: no connection came about
        kNeedsPassword,  ///< the same, for want of one
        kLost,           ///< by libpq: the connection is no more
        kSilent,         ///< waited long enough
        kStopped,        ///< `stopping` was set
        kUnusable,       ///< the statement, or the answer
    };
    Kind kind = Kind::kNone;
    std::string sqlstate{};
    std::string text{};
    bool while_committing = false;  ///< and the answer to that did not come
};

/// A store of this place (place.h) as messages name it.
std::string postgres_store_named(std::string_view place);

/// One line: the store, what was done, what to do about it, and the server's own words.
Error worded(std::string_view place, std::string_view doing, const PostgresFailure& failure);

/// In one line of printing characters, of a bounded length, without the secrets of keys.
std::string shown_message(std::string_view text);

/// libpq's message without its guesses at the cause, which it puts on lines of their own.
std::string without_guesses(std::string_view text);

std::string first_line(std::string_view text);

/// The SQLSTATE and the primary message in one of libpq's of PQERRORS_VERBOSE, the only way to the SQLSTATE
/// of a failed connection: `<libpq's words>FATAL:  3D000: database "keys" does not exist`, then other lines.
bool find_sqlstate(std::string_view text, PostgresFailure& failure);

}  // namespace apikeyd
