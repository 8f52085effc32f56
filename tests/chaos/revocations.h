// How long a revocation takes on a live daemon, with two processes of two threads each that present the key
// as fast as they can.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace apikeyd::test {

struct RevocationOptions {
    unsigned count = 10000;
    unsigned keys = 50000;  ///< in the key set, besides those that are revoked
    std::function<bool()> interrupted = [] { return false; };
};

/// One row: what was timed, and its figures with their names.
struct RevocationRow {
    std::string what;
    std::vector<std::pair<const char*, uint64_t>> figures;
};

/// Half of the revocations come while nothing else happens, half while one generation after the other is
/// built and published. Timed are, to the beginning of the last call, of all threads, that accepted the key:
/// from when the daemon had read the request, and from before it was sent; and from there to the answer.
/// Beside them stands how late the machine woke a sleeping thread meanwhile.
/// `violations` are calls that accepted the key and began after the answer, and other wrong verdicts. Ends
/// early, with what it has, when it is interrupted.
std::vector<RevocationRow> time_revocations(const RevocationOptions& options, uint64_t* violations);

}  // namespace apikeyd::test
