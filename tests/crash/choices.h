// The points that a scenario met, and which of them are worth a run of their own.

#pragma once

#include <string>
#include <vector>

#include "tests/crash/points.h"

namespace apikey::crash {

/// A point of the list, as a person finds it.
struct Listed {
    std::string place;
    Kind kind;
    uint8_t step;
    unsigned hit;  ///< of this place, from 1

    std::string text() const;
};
std::vector<Listed> listed(const Record& record);

struct Choice {
    Order order;
    std::string text;
};

enum class Choose : uint8_t {
    kFirstHits,  ///< each place once, where a kill leaves something behind
    kUsual,
    kAll,
};

/// Usually of each store the first and the last hit in each part of the scenario and one in between; each
/// system call that changes files, before it, halfway through it and before what comes next. A call that
/// leaves no trace is the next point's state, and comes only where it is met first, last and in between.
std::vector<Choice> choose_kills(const std::vector<Listed>& points, Choose choose);

/// Usually all ways to fail where a call is first met in a part of the scenario, and one of them, by turns,
/// where it comes again.
std::vector<Choice> choose_failures(const std::vector<Listed>& points, Choose choose);

}  // namespace apikey::crash
