// One run: the scenario with an order for one of its points, then a writer that comes after, with servers
// that were there before and others that come later. Every promise is checked on the way.

#pragma once

#include <string>

#include "tests/crash/points.h"

namespace apikey::crash {

struct Outcome {
    std::string problem;   ///< the first broken promise; empty when all were kept
    bool killed = false;   ///< the scenario's writer, by its order
    bool refused = false;  ///< an operation answered with an error, and was asked for again
    uint64_t judged = 0;   ///< promises checked
};

struct Plan {
    Order walk = {};     ///< for the scenario's writer
    bool again = false;  ///< the one that comes after has an order too, and is followed by a third
    Order after = {};
    bool record = false;  ///< all points of the last who has an order, and not only those that orders are for
};

/// Of the scenario's writer and of the one that comes after.
struct Records {
    Record walk;
    Record after;
};

/// `records` are shared memory.
Outcome run(const Plan& plan, Records* records);

}  // namespace apikey::crash
