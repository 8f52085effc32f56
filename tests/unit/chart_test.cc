// Promise: a chart shows each count in its place and in its proportion, whatever the numbers and the
// terminal.

#include "tools/chart.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "source/rfc3339.h"

namespace apikeyd {
namespace {

constexpr int64_t kHour_s = 3600;
constexpr int64_t kDay_s = 86400;
const int64_t kBegin_s = parse_rfc3339("2026-11-26T22:00:00Z").value();

std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) {
        lines.push_back(line);
    }
    return lines;
}

size_t width_of(const std::string& line) {
    return static_cast<size_t>(
        std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

TEST(Chart, NothingCounted) {
    const Chart chart({kHour_s, kBegin_s, kBegin_s + 24 * kHour_s}, {});
    EXPECT_EQ(chart.format("requests", true),
              "requests by hour\n2026-11-26 22:00 to 2026-11-27 22:00 UTC\nnothing was counted\n");
    const Chart empty({kHour_s, kBegin_s, kBegin_s}, {});
    EXPECT_NE(empty.format("requests", true).find("nothing was counted"), std::string::npos);
}

TEST(Chart, OneStep) {
    Chart chart({kDay_s, kBegin_s - 22 * kHour_s, kBegin_s + 2 * kHour_s}, {});
    chart.add(kBegin_s - 22 * kHour_s, 1, 0);
    EXPECT_EQ(chart.format("requests", true),
              "requests by day\n"
              "2026-11-26 to 2026-11-27 UTC\n"
              "   1 |#######\n"
              "     |#######\n     |#######\n     |#######\n     |#######\n     |#######\n     |#######\n"
              "     |#######\n     |#######\n     |#######\n"
              "   0 ++-------\n"
              "      2026-11-26\n"
              "# allowed 1   x denied 0\n");
}

TEST(Chart, BarsAreInProportionAndDeniedStandsAbove) {
    Chart chart({kHour_s, kBegin_s, kBegin_s + 4 * kHour_s}, {.columns = 24});
    chart.add(kBegin_s, 100, 0);
    chart.add(kBegin_s + kHour_s, 30, 20);
    chart.add(kBegin_s + 3 * kHour_s, 1, 0);
    const std::vector<std::string> shown = lines(chart.format("requests", true));
    ASSERT_EQ(shown.size(), 16U);
    EXPECT_EQ(shown[2], " 100 |###");
    EXPECT_EQ(shown[6], "     |###");
    EXPECT_EQ(shown[7], "  50 |### xxx");
    EXPECT_EQ(shown[8], "     |### xxx");
    EXPECT_EQ(shown[9], "     |### ###");
    EXPECT_EQ(shown[11], "     |### ###     ###") << "little is not nothing, and an hour without is a gap";
    EXPECT_EQ(shown[13], "      11-26 22:00");
    EXPECT_EQ(shown[14], "# allowed 131");
}

TEST(Chart, FewDenialsAreNotDrawnLargerThanTheyAre) {
    Chart chart({kHour_s, kBegin_s, kBegin_s + 3 * kHour_s}, {.columns = 24});
    chart.add(kBegin_s, 96, 4);
    chart.add(kBegin_s + kHour_s, 94, 6);
    chart.add(kBegin_s + 2 * kHour_s, 0, 1);
    const std::vector<std::string> shown = lines(chart.format("requests", true));
    EXPECT_EQ(shown[2], " 100 |##### xxxxx");
    EXPECT_EQ(shown[3], "     |##### #####");
    EXPECT_EQ(shown[11], "     |##### ##### xxxxx");
    EXPECT_EQ(shown[15], "x denied 11") << "the legend has all";
}

TEST(Chart, TheScaleIsTheNextRoundNumber) {
    const auto scale_of = [](uint64_t count) {
        Chart chart({kHour_s, kBegin_s, kBegin_s + kHour_s}, {});
        chart.add(kBegin_s, count, 0);
        const std::vector<std::string> shown = lines(chart.format("requests", true));
        return shown[2].substr(0, 4) + '/' + shown[7].substr(0, 4);
    };
    EXPECT_EQ(scale_of(3), "   3/    ");
    EXPECT_EQ(scale_of(4), "   4/   2");
    EXPECT_EQ(scale_of(11), "  20/  10");
    EXPECT_EQ(scale_of(999), "  1k/ 500");
    EXPECT_EQ(scale_of(2001), "  3k/1.5k");
    EXPECT_EQ(scale_of(800'000), "800k/400k");
    EXPECT_EQ(scale_of(800'001), "  1M/500k");
}

TEST(Chart, EighthsOfACellWhereTheTerminalHasThem) {
    Chart chart({kHour_s, kBegin_s, kBegin_s + 3 * kHour_s}, {.columns = 24, .utf8 = true});
    chart.add(kBegin_s, 10, 0);
    chart.add(kBegin_s + kHour_s, 0, 1);
    chart.add(kBegin_s + 2 * kHour_s, 5, 0);
    const std::vector<std::string> shown = lines(chart.format("requests", true));
    EXPECT_EQ(shown[2], "  10 │█████");
    EXPECT_EQ(shown[11], "     │█████ ░░░░░ █████");
    Chart fine({kHour_s, kBegin_s, kBegin_s + 3 * kHour_s}, {.columns = 24, .utf8 = true});
    fine.add(kBegin_s, 1000, 0);
    fine.add(kBegin_s + kHour_s, 50, 0);
    fine.add(kBegin_s + 2 * kHour_s, 1, 0);
    EXPECT_EQ(lines(fine.format("requests", true))[11], "     │█████ ▄▄▄▄▄ ▁▁▁▁▁");
}

TEST(Chart, StepsThatFindNoColumnAreJoinedAndItSaysSo) {
    Chart chart({60, kBegin_s, kBegin_s + 48 * kHour_s}, {.columns = 80});
    uint64_t sum = 0;
    for (int64_t at_s = kBegin_s; at_s < kBegin_s + 48 * kHour_s; at_s += 60) {
        chart.add(at_s, 2, 1);
        sum += 2;
    }
    const std::vector<std::string> shown = lines(chart.format("requests", true));
    EXPECT_EQ(shown[0], "requests by minute, 1 hour a column");
    EXPECT_EQ(shown[2], " 200 |") << "60 times 3 in each";
    EXPECT_EQ(shown[11].size(), 6U + 48U);
    EXPECT_EQ(shown.back(), "# allowed " + std::to_string(sum) + "   x denied " + std::to_string(sum / 2));
    EXPECT_EQ(lines(Chart({kDay_s, 0, 20000 * kDay_s}, {.columns = 80}).format("requests", true))[0],
              "requests by day, 273 days a column");
}

TEST(Chart, NoLineIsLongerThanTheTerminal) {
    for (const size_t columns : {0U, 24U, 40U, 79U, 80U, 200U}) {
        for (const int64_t steps : {1, 2, 17, 74, 75, 1000, 100'000}) {
            for (const int64_t step_s : {int64_t{60}, kHour_s, kDay_s}) {
                Chart chart({step_s, 0, steps * step_s}, {.columns = columns, .utf8 = steps % 2 == 0});
                for (int64_t i = 0; i < steps; ++i) {
                    chart.add(i * step_s, static_cast<uint64_t>(i), 1);
                }
                const std::vector<std::string> shown = lines(chart.format("requests", true));
                for (size_t i = 2; i < shown.size(); ++i) {  // behind the title
                    EXPECT_LE(width_of(shown[i]), std::max(columns, kChartColumnsMin)) << shown[i];
                }
            }
        }
    }
}

TEST(Chart, HugeNumbersStopAtTheLargest) {
    Chart chart({kHour_s, kBegin_s, kBegin_s + 2 * kHour_s}, {});
    chart.add(kBegin_s, UINT64_MAX, UINT64_MAX);
    chart.add(kBegin_s, UINT64_MAX, 1);
    chart.add(kBegin_s + kHour_s, UINT64_MAX / 2, 0);
    const std::vector<std::string> shown = lines(chart.format("requests", true));
    EXPECT_EQ(shown[2].substr(0, 6), " 20E |");
    EXPECT_EQ(shown[7].substr(0, 6), " 10E |");
    EXPECT_EQ(shown.back(), "# allowed 18446744073709551615   x denied 18446744073709551615");
}

TEST(Chart, ColoursAddNothing) {
    const auto drawn = [](bool colour) {
        Chart chart({kHour_s, kBegin_s, kBegin_s + 2 * kHour_s}, {.columns = 40, .colour = colour});
        chart.add(kBegin_s, 3, 2);
        return chart.format("requests", true);
    };
    std::string text = drawn(true);
    EXPECT_NE(text.find("\x1b[31mx"), std::string::npos);
    for (const std::string code : {"\x1b[31m", "\x1b[32m", "\x1b[0m"}) {
        for (size_t at = 0; (at = text.find(code)) != std::string::npos;) {
            text.erase(at, code.size());
        }
    }
    EXPECT_EQ(text, drawn(false));
}

}  // namespace
}  // namespace apikeyd
