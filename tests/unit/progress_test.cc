#include "tools/progress.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace apikeyd {
namespace {

TEST(Progress, TellsHowManyAreDoneAndHowFast) {
    EXPECT_EQ(progress_line({"keys", 250'000, 1'000'000, 3000}, 58),
              "keys 250000 of 1000000 [#####...............] 25% 83333/s");
    EXPECT_EQ(progress_line({"keys", 1'000'000, 1'000'000, 1000}, 52),
              "keys 1000000 of 1000000 [##########] 100% 1000000/s");
    EXPECT_EQ(progress_line({"rows", 12, 0, 4000}, 80), "rows 12 3/s");
}

TEST(Progress, FitsTheTerminalAndTheBounds) {
    for (size_t columns = 0; columns < 200; ++columns) {
        const std::string line = progress_line({"keys", 5, 10, 1000}, columns);
        EXPECT_TRUE(line.size() < std::max<size_t>(columns, 24)) << columns << " " << line;
    }
    // More than there were, at the very start.
    EXPECT_NE(progress_line({"keys", 11, 10, 0}, 80).find("100%"), std::string::npos);
}

}  // namespace
}  // namespace apikeyd
