// How a verb ends: the exit statuses, and the one way in which a failure travels.

#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <utility>

#include "base/result.h"

namespace apikeyd {

/// What the tool's exit status says; stable.
enum class Exit : int {
    kDone = 0,
    kNo = 1,           ///< the answer is no: a key that is not valid, an id that is not there, a refused set
    kUsage = 2,        ///< wrong usage
    kUnreachable = 3,  ///< daemon or store cannot be reached; recorded, but not in force
};

/// Why the daemon gave no answer.
enum class Daemon : int {
    kDown,
    kForbidden,  ///< it may well be there, and the caller is no operator
    kSilent,     ///< it took the request and did not answer in time
};

/// What is in the way, for who has more to tell than an exit status.
enum class Cause : uint8_t {
    kOther,
    kMissing,   ///< there is nothing of this id or name
    kConflict,  ///< it is in a state, or others use it, so that this cannot be
    kWanted,    ///< what was wanted cannot be: `field`, where one is at fault
    kRecorded,  ///< durable, and not in force everywhere that it was to be
};

/// A verb's failure: what main() prints on standard error, and the status it exits with. The text starts with
/// the place (a path, an id, an option) and holds no secret. An empty text: all has been said already.
struct Failure {
    Exit exit;
    std::string message;
    Daemon daemon = Daemon::kDown;  ///< of kUnreachable: what the daemon's door was like
    Cause cause = Cause::kOther;
    std::string field = {};  ///< as key sets call it; then the text stands behind its name
};

using Outcome = tl::expected<void, Failure>;

inline tl::unexpected<Failure> failed(Exit exit, std::string message) {
    return tl::unexpected<Failure>(Failure{exit, std::move(message)});
}
/// kUnreachable, whatever `exit` says, where the store failed.
inline tl::unexpected<Failure> failed(Exit exit, const Error& error) {
    return failed(error.of_store ? Exit::kUnreachable : exit, error.message);
}
/// The same of what was wanted and cannot be.
inline tl::unexpected<Failure> not_wanted(Exit exit, const Error& error) {
    auto failure = failed(exit, error);
    failure.value().cause = error.of_store ? Cause::kOther : Cause::kWanted;
    return failure;
}
inline tl::unexpected<Failure> failed(Exit exit, Cause cause, std::string message, std::string field = {}) {
    return tl::unexpected<Failure>(Failure{exit, std::move(message), Daemon::kDown, cause, std::move(field)});
}

}  // namespace apikeyd
