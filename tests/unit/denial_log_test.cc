// Promises: each denial is a line or in the number of those left out, through daemons that come and go and
// generations that are built and retired; no second has more lines of a code than asked for; whatever clients
// scribble into a ring makes no more of them, and none that a reader could take for another.

#include "core/denial_log.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "apikey/apikey.h"
#include "publisher_fixture.h"
#include "shm/cells.h"

namespace apikeyd {
namespace {

namespace fs = std::filesystem;
using apikey::shm::CellsView;
using apikey::shm::Denial;

constexpr uint32_t kCap = 3;

class DenialLogTest : public PublisherFixture {
  protected:
    void SetUp() override {
        PublisherFixture::SetUp();
        config_.file = path_;
        config_.per_second = kCap;
        KeyRow row = numbered_row(1);
        row.owner = "acme";
        add({{Change::Kind::kUpsert, row}});
        open_log();
    }
    void add(const std::vector<Change>& changes) {
        told_ = 0;
        publisher_->apply(changes, told());
        run_until([&] { return told_ == 1; });
    }
    /// Until there is another generation.
    void grow() {
        const GenerationPtr before = publisher_->current();
        for (uint64_t number = 2; publisher_->current() == before; ++number) {
            add({{Change::Kind::kUpsert, numbered_row(number)}});
        }
    }
    void open_log() {
        denials_.reset();
        denials_ = std::make_unique<DenialLog>(*publisher_, config_, *log_);
    }
    /// A daemon that ends at once, and the next one.
    void restart() {
        denials_.reset();
        publisher_.reset();
        open_publisher();
        open_log();
    }
    const CellsView& cells() const { return publisher_->current()->cells(); }

    static Denial denial_of(apikey_code code) {
        Denial denial{};
        denial.time_ns = 1767225600123456789;  // 2026-01-01T00:00:00.123Z
        denial.code = static_cast<uint8_t>(code);
        denial.pid = 77;
        return denial;
    }
    /// As a server does.
    static void deny(const CellsView& view, const Denial& denial, int times = 1) {
        for (int i = 0; i < times; ++i) {
            count_code(view, denial.code, 0);
            if (take_denial_room(view, denial.code)) {
                write_denial(view, denial);
            }
        }
    }
    void deny(apikey_code code, int times = 1) { deny(cells(), denial_of(code), times); }
    /// All that can be told is, and the next second begins.
    void end_second() {
        denials_->drain();
        denials_->drain();
        denials_->end_second();
    }

    std::vector<std::string> lines(const fs::path& path) const {
        std::ifstream file(path);
        std::vector<std::string> lines;
        for (std::string line; std::getline(file, line);) {
            lines.push_back(line);
        }
        return lines;
    }
    std::vector<std::string> lines() const { return lines(path_); }
    /// Without its time.
    std::string last() const {
        return lines().empty() ? ""
                               : lines().back().substr(std::string("time=YYYY-MM-DDTHH:MM:SS.mmmZ ").size());
    }
    size_t denied(apikey_code code) const {
        const std::string wanted = std::string("event=denied code=") + apikey_code_name(code) + ' ';
        size_t count = 0;
        for (const std::string& line : lines()) {
            count += (line + ' ').find(wanted) != std::string::npos ? 1 : 0;
        }
        return count;
    }
    size_t left_out(apikey_code code) const {
        const std::string wanted =
            std::string("level=warn event=denials.left_out code=") + apikey_code_name(code) + " count=";
        size_t sum = 0;
        for (const std::string& line : lines()) {
            if (const size_t at = line.find(wanted); at != std::string::npos) {
                sum += std::stoul(line.substr(at + wanted.size()));
            }
        }
        return sum;
    }

    DenialLogConfig config_;
    fs::path path_ = directory_ / "denials.log";
    std::unique_ptr<DenialLog> denials_;
};
INSTANTIATE_TEST_SUITE_P(BothLoops, DenialLogTest, both_loops(), loop_param_name);

TEST_P(DenialLogTest, ALineSaysWhatTheServerKnew) {
    const std::string time = "time=2026-01-01T00:00:00.123Z level=info event=denied code=";
    Denial denial = denial_of(APIKEY_REVOKED);
    denial.parts = apikey::shm::kDenialSlot | apikey::shm::kDenialAddress;
    denial.slot = found(numbered_row(1)).index;
    denial.address[10] = denial.address[11] = 0xff;
    denial.address[12] = 192;
    denial.address[14] = 2;
    denial.address[15] = 7;
    deny(cells(), denial);
    denials_->drain();
    EXPECT_EQ(lines().back(), time + "REVOKED key=000000000001 owner=acme address=192.0.2.7 pid=77");
    denial = denial_of(APIKEY_NOT_FOUND);
    denial.parts = apikey::shm::kDenialId | apikey::shm::kDenialAddress;
    std::memcpy(denial.key_id, "AZaz09AZaz09", sizeof denial.key_id);
    denial.address[15] = 1;
    deny(cells(), denial);
    denials_->drain();
    EXPECT_EQ(lines().back(), time + "NOT_FOUND unknown_key=AZaz09AZaz09 address=::1 pid=77");
    denial = denial_of(APIKEY_NOT_FOUND);
    denial.parts = apikey::shm::kDenialMark;
    const uint8_t mark[] = {0x0a, 0xf1};
    std::memcpy(&denial.key_mark, mark, sizeof mark);
    denial.pid = 0;
    deny(cells(), denial);
    denials_->drain();
    EXPECT_EQ(lines().back(), time + "NOT_FOUND sha256_end=0af1");
    config_.format = LogFormat::json;
    open_log();
    deny(APIKEY_EXPIRED);
    denials_->drain();
    EXPECT_EQ(
        lines().back(),
        R"({"time":"2026-01-01T00:00:00.123Z","level":"info","event":"denied","code":"EXPIRED","pid":77})");
}

TEST_P(DenialLogTest, ASecretInAnOwnersNameIsLeftOut) {
    KeyRow row = numbered_row(2);
    row.owner = "ak_live_AAAAAAAAAAAA_" + std::string(33, 'b');
    add({{Change::Kind::kUpsert, row}});
    Denial denial = denial_of(APIKEY_REVOKED);
    denial.parts = apikey::shm::kDenialSlot;
    denial.slot = found(row).index;
    deny(cells(), denial);
    denials_->drain();
    EXPECT_EQ(last(),
              "level=info event=denied code=REVOKED key=000000000002 owner=ak_live_AAAAAAAAAAAA_... pid=77");
}

TEST_P(DenialLogTest, CodesHaveTheLibrarysNames) {
    for (int code = APIKEY_MALFORMED; code <= APIKEY_UNAVAILABLE; ++code) {
        deny(static_cast<apikey_code>(code));
        denials_->drain();
        EXPECT_EQ(denied(static_cast<apikey_code>(code)), 1U) << code;
    }
    const size_t before = lines().size();
    deny(APIKEY_VALID);
    deny(APIKEY_SHADOW_RATE_LIMITED);
    deny(APIKEY_SHADOW_USAGE_EXCEEDED);
    end_second();
    EXPECT_EQ(lines().size(), before) << "no denials";
}

TEST_P(DenialLogTest, ASecondHasSoManyOfEachCodeAndTheNumberLeftOut) {
    deny(APIKEY_REVOKED, kCap + 2);
    deny(APIKEY_NOT_FOUND, 1);
    end_second();
    EXPECT_EQ(denied(APIKEY_REVOKED), kCap);
    EXPECT_EQ(denied(APIKEY_NOT_FOUND), 1U);
    ASSERT_EQ(lines().size(), kCap + 2U);
    EXPECT_EQ(last(), "level=warn event=denials.left_out code=REVOKED count=2");
    end_second();
    EXPECT_EQ(lines().size(), kCap + 2U) << "what was told is not told again";
    deny(APIKEY_REVOKED, kCap);
    end_second();
    EXPECT_EQ(denied(APIKEY_REVOKED), 2 * kCap) << "another second";
    EXPECT_EQ(left_out(APIKEY_REVOKED), 2U);
}

TEST_P(DenialLogTest, WhatIsOvertakenIsCounted) {
    config_.per_second = kDenialsMax;
    open_log();
    const uint64_t entries = uint64_t{1} << cells().denial_bits;
    const auto many = static_cast<int>(kDenialsMax);
    for (const apikey_code code : {APIKEY_REVOKED, APIKEY_EXPIRED, APIKEY_NOT_FOUND}) {
        deny(code, many);
    }
    end_second();
    EXPECT_EQ(denied(APIKEY_REVOKED) + denied(APIKEY_EXPIRED) + denied(APIKEY_NOT_FOUND), entries);
    for (const apikey_code code : {APIKEY_REVOKED, APIKEY_EXPIRED, APIKEY_NOT_FOUND}) {
        EXPECT_EQ(denied(code) + left_out(code), kDenialsMax);
    }
}

TEST_P(DenialLogTest, ADaemonGoesOnWhereTheOneBeforeEnded) {
    deny(APIKEY_REVOKED, 2);
    denials_->drain();
    restart();
    EXPECT_EQ(denied(APIKEY_REVOKED), 2U);
    deny(APIKEY_REVOKED, 1);
    deny(APIKEY_EXPIRED, kCap + 5);  // a daemon was killed, or is not there, after this
    restart();
    end_second();
    EXPECT_EQ(denied(APIKEY_REVOKED), 3U);
    EXPECT_EQ(left_out(APIKEY_REVOKED), 0U);
    EXPECT_EQ(denied(APIKEY_EXPIRED), kCap);
    EXPECT_EQ(left_out(APIKEY_EXPIRED), 5U);
}

TEST_P(DenialLogTest, WithoutAFileRingsAreClosed) {
    deny(APIKEY_REVOKED, 1);
    config_.file.clear();
    restart();
    EXPECT_FALSE(denials_->on());
    const uint64_t begun = cells().ring->begun.load();
    deny(APIKEY_REVOKED, 9);
    end_second();
    EXPECT_EQ(cells().ring->begun.load(), begun) << "a server wrote";
    grow();
    deny(APIKEY_REVOKED, 9);
    EXPECT_EQ(cells().ring->begun.load(), 0U) << "in a new generation";
    EXPECT_EQ(denials_->problem(), "");
    config_.file = path_;
    restart();
    end_second();
    EXPECT_TRUE(lines().empty()) << "nobody was to be told of these";
    deny(APIKEY_REVOKED, 1);
    end_second();
    EXPECT_EQ(denied(APIKEY_REVOKED), 1U);
}

TEST_P(DenialLogTest, GenerationsComeAndGo) {
    const GenerationPtr first = publisher_->current();
    deny(first->cells(), denial_of(APIKEY_REVOKED), 2);
    grow();
    // Before this daemon looked at it.
    deny(APIKEY_EXPIRED, kCap + 1);
    deny(first->cells(), denial_of(APIKEY_REVOKED), 4);
    denials_->finish(first);
    EXPECT_EQ(denied(APIKEY_REVOKED), kCap);
    EXPECT_EQ(left_out(APIKEY_REVOKED), 3U) << "at once: its file goes";
    publisher_->drop_superseded(first);
    end_second();
    EXPECT_EQ(denied(APIKEY_EXPIRED), kCap);
    EXPECT_EQ(left_out(APIKEY_EXPIRED), 1U);
    EXPECT_EQ(denied(APIKEY_REVOKED) + left_out(APIKEY_REVOKED), 6U) << "told again";
}

TEST_P(DenialLogTest, AServerThatEndedOrWasHaltedIsInTheNumber) {
    // Killed after it was counted, and after it had a number.
    count_code(cells(), APIKEY_REVOKED, 0);
    count_code(cells(), APIKEY_REVOKED, 0);
    ASSERT_TRUE(take_denial_room(cells(), APIKEY_REVOKED));
    const uint64_t number = cells().ring->begun.fetch_add(1);
    deny(APIKEY_REVOKED);
    denials_->drain();
    EXPECT_EQ(denied(APIKEY_REVOKED), 0U) << "one that is not whole is waited for";
    denials_->drain();
    EXPECT_EQ(denied(APIKEY_REVOKED), 1U);
    denials_->end_second();
    EXPECT_EQ(left_out(APIKEY_REVOKED), 2U);
    // Goes on after it was told as left out.
    cells().ring->begun.store(number);
    write_denial(cells(), denial_of(APIKEY_REVOKED));
    cells().ring->read.store(number);
    open_log();
    end_second();
    EXPECT_EQ(denied(APIKEY_REVOKED) + left_out(APIKEY_REVOKED), 3U);
}

/// No byte of it could steer a terminal, end a line early or stand for a key.
void expect_harmless(const std::vector<std::string>& lines) {
    for (const std::string& line : lines) {
        for (const char c : line) {
            ASSERT_TRUE(c >= ' ' && c <= '~') << line;
        }
        std::istringstream words(line);
        for (std::string word; words >> word;) {
            const std::string name = word.substr(0, word.find('='));
            ASSERT_TRUE(name == "time" || name == "level" || name == "event" || name == "code" ||
                        name == "key" || name == "owner" || name == "unknown_key" || name == "sha256_end" ||
                        name == "address" || name == "pid" || name == "count")
                << line;
        }
    }
}

TEST_P(DenialLogTest, ForgedEntriesMakeNoLine) {
    Denial denial = denial_of(APIKEY_NOT_FOUND);
    denial.parts = apikey::shm::kDenialId;
    std::memcpy(denial.key_id, "a\nb c=d\x1b[2J", sizeof denial.key_id);
    deny(cells(), denial);
    denial.parts = apikey::shm::kDenialSlot;
    for (const uint64_t slot : {cells().cell_count, ~uint64_t{0}, found(numbered_row(1)).index ^ 1}) {
        denial.slot = slot;
        deny(cells(), denial);
    }
    denial = denial_of(APIKEY_NOT_FOUND);
    denial.code = 255;
    write_denial(cells(), denial);
    end_second();
    EXPECT_EQ(lines().size(), 1U);
    EXPECT_EQ(left_out(APIKEY_NOT_FOUND), 4U) << "they are in the number: the totals have them";
    write_denial(cells(), denial_of(APIKEY_REVOKED));
    end_second();
    EXPECT_EQ(denied(APIKEY_REVOKED), 0U) << "of nothing that was counted";
}

TEST_P(DenialLogTest, ScribblesMakeNoMoreLines) {
    std::mt19937_64 random(5);
    const uint64_t entries = uint64_t{1} << cells().denial_bits;
    apikey::shm::DenialRing& ring = *cells().ring;
    size_t before = 0;
    for (int second = 0; second < 60; ++second) {
        for (uint32_t code = 0; code < apikey::shm::kCodesMax; ++code) {
            count_code(cells(), code, 0, random() % 2000);
            ring.room[code].store(random());
            ring.told[code].store(random());
        }
        ring.read.store(random());
        ring.begun.store(second % 3 == 0 ? random() : ring.begun.load() + random() % entries);
        for (int i = 0; i < 500; ++i) {
            Denial denial;
            uint64_t words[sizeof denial / sizeof(uint64_t)];
            for (uint64_t& word : words) {
                word = random();
            }
            std::memcpy(&denial, words, sizeof denial);
            denial.code = static_cast<uint8_t>(random() % 16);
            write_denial(cells(), denial);
        }
        if (second % 7 == 0) {
            open_log();
        }
        end_second();
        const size_t now = lines().size();
        ASSERT_LE(now - before, 10U * (kCap + 1));
        before = now;
    }
    EXPECT_GT(before, 60U) << "some are told";
    expect_harmless(lines());
}

TEST_P(DenialLogTest, ReopensItsFileAndSaysWhenItCannotWrite) {
    deny(APIKEY_REVOKED);
    denials_->drain();
    fs::rename(path_, directory_ / "denials.log.1");
    denials_->reopen();
    deny(APIKEY_REVOKED);
    denials_->drain();
    EXPECT_EQ(lines().size(), 1U);
    EXPECT_EQ(lines(directory_ / "denials.log.1").size(), 1U);
    config_.file = directory_.path() / "d" / "denials.log";
    open_log();
    EXPECT_NE(denials_->problem().find("No such file or directory"), std::string::npos);
    EXPECT_NE(lines(directory_ / "log").back().find("level=error event=denials.not_written"),
              std::string::npos);
}

}  // namespace
}  // namespace apikeyd
