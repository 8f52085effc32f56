// Promise: no line is wider than the terminal, no name steers it, and without colour there is none.

#include "tools/top/layout.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tools/top/top_json.h"

namespace apikeyd::top {
namespace {

View busy_view() {
    View view;
    view.instance = "/run/apikeyd/default";
    view.look.attached = apikey::shm::AttachResult::kOk;
    view.look.realtime_ns = 1'800'000'000'000'000'000;
    view.look.health = {.state = apikey::shm::ControlState::kServing,
                        .heartbeat_ns = view.look.realtime_ns - 1'000'000,
                        .pid = 42,
                        .refused = 3,
                        .generation = 7,
                        .slots = UINT64_MAX,
                        .live = UINT64_MAX,
                        .unflushed_max = UINT64_MAX};
    view.codes.note = RateNote::kGeneration;
    view.codes.seconds = 2;
    view.codes.by_code.fill(9.9e9);
    view.activity.seconds = 2;
    view.activity.active = 50;
    for (int i = 0; i < 50; ++i) {
        view.activity.keys.push_back({"0123456789aB", "owner \x1b[2J" + std::string(300, 'o'), "plan\n",
                                      "\xe5\xae\xa2\xe6\x88\xb7 \xc2\x9b"
                                      "31m \xe2\x80\xae \xff name",
                                      1e9, 12.5});
        view.activity.limits.push_back({"", "acme", "monthly", false, true, 0.99, 1000, 10, 86'400'000});
    }
    return view;
}

/// Columns of what fit() has made, whose only wide characters are those of busy_view().
size_t columns(const std::string& text) {
    size_t count = 0;
    for (size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        count += (byte & 0xc0) == 0x80 ? 0 : (byte & 0xf0) == 0xe0 ? 2 : 1;
    }
    return count;
}

TEST(TopLayout, NoLineIsWiderAndNoScreenHigherThanAsked) {
    const View view = busy_view();
    for (size_t width = 0; width <= 220; ++width) {
        for (const size_t height : {1u, 2u, 5u, 9u, 24u, 70u}) {
            const std::vector<Line> lines = lay_out(view, {width, height}, 0);
            EXPECT_LE(lines.size(), height);
            for (const Line& line : lines) {
                EXPECT_LE(columns(render({line}, false, "")), width) << render({line}, false, "");
            }
        }
    }
}

TEST(TopLayout, NothingOfANameSteersTheTerminal) {
    const std::string text = render(lay_out(busy_view(), {200, 40}, 0), false, "\n");
    for (const char c : text) {
        EXPECT_TRUE(c == '\n' || (c & 0x80) != 0 || (c >= 0x20 && c != 0x7f)) << static_cast<int>(c);
    }
    for (const char* steering : {"\xc2\x9b", "\xe2\x80\xae", "\xff"}) {
        EXPECT_EQ(text.find(steering), std::string::npos);
    }
    EXPECT_NE(text.find("\xe5\xae\xa2\xe6\x88\xb7 ?31m ? ? name"), std::string::npos) << "the rest stays";
}

TEST(TopLayout, ColoursOnlyWhereWanted) {
    EXPECT_NE(render(lay_out(busy_view(), {80, 24}, 0), true, "\n").find("\x1b["), std::string::npos);
    EXPECT_EQ(render(lay_out(busy_view(), {80, 24}, 0), false, "\n").find('\x1b'), std::string::npos);
}

TEST(TopLayout, FitCutsAndFills) {
    EXPECT_EQ(fit("abc", 5), "abc  ");
    EXPECT_EQ(fit("abcdef", 3), "abc");
    EXPECT_EQ(fit("\xe5\xae\xa2\xe6\x88\xb7", 3), "\xe5\xae\xa2 ") << "half a wide character does not fit";
    EXPECT_EQ(fit("a\0b", 0), "");
    EXPECT_EQ(fit(std::string_view("a\0b", 3), 3), "a?b");
}

TEST(TopLayout, AnInstanceThatIsAwayIsSaid) {
    View view;
    view.instance = "/run/apikeyd/default";
    const std::string text = render(lay_out(view, {80, 24}, 0), false, "\n");
    EXPECT_NE(text.find("no table yet"), std::string::npos);
}

TEST(TopLayout, ThereIsAsMuchAsFits) {
    EXPECT_EQ(lay_out(busy_view(), {80, 24}, 0).size(), 24u);
    size_t keys = 0;
    for (const Line& line : lay_out(busy_view(), {80, 70}, 4)) {
        keys += render({line}, false, "").starts_with("0123456789aB") ? 1 : 0;
    }
    EXPECT_EQ(keys, 4u);
}

TEST(TopLayout, NumbersAreShort) {
    EXPECT_EQ(rate_text(0), "0");
    EXPECT_EQ(rate_text(0.25), "0.25");
    EXPECT_EQ(rate_text(12.5), "12.5");
    EXPECT_EQ(rate_text(1234), "1234");
    EXPECT_EQ(rate_text(1234567), "1.23M");
    EXPECT_EQ(rate_text(9.9e9), "9.90G");
    EXPECT_EQ(duration_text(450), "450ms");
    EXPECT_EQ(duration_text(119'000), "119s");
    EXPECT_EQ(duration_text(3'600'000), "60m");
    EXPECT_EQ(duration_text(200'000'000), "2d");
}

TEST(TopLayout, JsonIsOneLine) {
    const std::string text = json_line(busy_view(), 3);
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace apikeyd::top
