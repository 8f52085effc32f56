// The daemon dies anywhere while it writes usage: what is on the disk is a state between two calls, and the
// next flush makes it exact.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <random>

#include "usage_fixture.h"

namespace apikeyd::test {
namespace {

/// Hundreds of stores are made and synced here. SIGKILL loses nothing that the kernel has, so no disk is
/// needed.
class InMemoryTest : public UsageTest {
  protected:
    [[nodiscard]] std::string place() const override {
        return access("/dev/shm", W_OK) == 0 ? "/dev/shm/" : UsageTest::place();
    }
};

class UsageCrashTest : public InMemoryTest, public ::testing::WithParamInterface<CrashPoint> {
  protected:
    static Generation at(uint64_t step, bool closing) {
        static const std::vector<std::string> ids = [] {
            std::vector<std::string> names;
            for (int i = 0; i < 4; ++i) {
                names.push_back("key" + std::to_string(i));
            }
            return names;
        }();
        static const KeyDigest limited = digest_of(0);
        static const QuotaName hourly{"free", "calls", apikey::shm::LimitKind::kHour};
        Generation generation{uid_of(1), {}, {{0, step * 10}, {4, step}}, closing};
        generation.quotas = {
            {&hourly, {reinterpret_cast<const char*>(limited.data()), limited.size()}, false, 0, step},
            {&hourly, "acme", true, 0, 2 * step}};
        for (uint64_t i = 0; i < ids.size(); ++i) {
            generation.keys.push_back({digest_of(i), ids[i], step * (i + 1), step});
        }
        return generation;
    }

    /// Each in a minute of its own: it moves the rows of the one before.
    static int64_t when_s(uint64_t step) { return 940 + 60 * static_cast<int64_t>(step); }

    /// What the store holds after the generation's sums at `step`.
    static Recorded after(uint64_t step) {
        Recorded all;
        std::map<std::string, KeyTotal> by_id;
        const Generation generation = at(step, false);
        for (const KeyCount& key : generation.keys) {
            const std::string id(key.key_id);
            by_id[id] = {id, key.allowed, key.denied, when_s(step)};
        }
        for (const auto& [id, total] : by_id) {
            all.keys.push_back(total);
        }
        all.codes = generation.codes;
        const std::string used = std::to_string(step);
        all.quotas = {"acme free/calls 1 0 " + std::to_string(2 * step),
                      "00000000000000000000000000000000 free/calls 1 0 " + used};
        return all;
    }

    /// What a restarted daemon does with a generation that still has its files.
    static void recover(const std::string& path) {
        UsageStore store = open_store(path);
        flush_one(store, at(3, true), when_s(3));
        EXPECT_EQ(recorded(path), after(3));
        EXPECT_TRUE(store.is_closed(uid_of(1)).value());
        ASSERT_TRUE(store.forget(uid_of(1)));
        flush_one(store, at(3, true), when_s(3));
        EXPECT_EQ(recorded(path), after(3));
        EXPECT_EQ(query_int(path, "SELECT (SELECT count(*) FROM baselines) + (SELECT count(*) FROM recent)"),
                  0);
    }
};

TEST_P(UsageCrashTest, FlushingClosingAndForgetting) {
    {
        UsageStore store = open_store(path_);
        flush_one(store, at(1, false), when_s(1));
    }
    const std::vector<Recorded> states = {after(1), after(2), after(3)};
    size_t reached = 0;
    int n = 1;
    for (;; ++n) {
        const std::filesystem::path copy = directory_ / std::to_string(n);
        std::filesystem::create_directory(copy);
        for (const char* name : {"usage.db", "usage.db-wal", "usage.db-shm"}) {
            std::filesystem::copy_file(directory_ / name, copy / name);
        }
        const std::string path = copy / "usage.db";
        const bool killed = crashes_at(GetParam(), n, [&] {
            UsageStore store = open_store(path);
            if (!store.for_each_quota([](const QuotaCount&) {}, 1000)) {
                throw std::runtime_error("for_each_quota");
            }
            flush_one(store, at(2, false), when_s(2));
            flush_one(store, at(3, true), when_s(3));
            if (!store.forget(uid_of(1))) {
                throw std::runtime_error("forget");
            }
        });
        const auto state = std::find(states.begin(), states.end(), recorded(path));
        ASSERT_NE(state, states.end()) << "neither before nor after a call, killed at point " << n;
        const auto index = static_cast<size_t>(state - states.begin());
        ASSERT_GE(index, reached) << "a committed flush was lost, killed at point " << n;
        reached = index;
        ASSERT_TRUE(times_agree(path)) << "killed at point " << n;
        recover(path);
        ASSERT_TRUE(times_agree(path)) << "killed at point " << n;
        std::filesystem::remove_all(copy);
        if (!killed) {
            break;
        }
    }
    EXPECT_EQ(reached, 2U);
    EXPECT_GT(n, 10) << "the hooks met too few points";
    std::printf("killed at %d points\n", n - 1);
}

TEST_P(UsageCrashTest, Creating) {
    int n = 1;
    for (bool killed = true; killed; ++n) {
        const std::filesystem::path directory = directory_ / std::to_string(n);
        std::filesystem::create_directory(directory);
        const std::string path = directory / "usage.db";
        killed = crashes_at(GetParam(), n, [&] {
            UsageStore store = open_store(path);
            flush_one(store, at(2, false), when_s(2));
        });
        recover(path);
        std::filesystem::remove_all(directory);
    }
    EXPECT_GT(n, 10) << "the hooks met too few points";
    std::printf("killed at %d points\n", n - 2);
}

TEST_P(UsageCrashTest, BringingUpAnOlderStore) {
    {
        UsageStore store = open_store(path_);
        flush_one(store, at(1, false), when_s(1));
    }
    make_version(1, path_);
    int n = 1;
    for (bool killed = true; killed; ++n) {
        const std::filesystem::path copy = directory_ / std::to_string(n);
        std::filesystem::create_directory(copy);
        const std::string path = copy / "usage.db";
        std::filesystem::copy_file(path_, path);
        killed = crashes_at(GetParam(), n, [&] { open_store(path); });
        const std::vector<std::string> versions = query_texts(path, "PRAGMA user_version");
        const bool brought_up =
            !query_texts(path, "SELECT name FROM sqlite_schema WHERE name = 'unsent'").empty();
        ASSERT_EQ(versions.at(0), brought_up ? "5" : "1") << "killed at point " << n;
        recover(path);
        std::filesystem::remove_all(copy);
    }
    EXPECT_GT(n, 5) << "the hooks met too few points";
    std::printf("killed at %d points\n", n - 2);
}

INSTANTIATE_TEST_SUITE_P(At, UsageCrashTest,
                         ::testing::Values(CrashPoint::kStatement, CrashPoint::kSystemCall,
                                           CrashPoint::kTornWrite),
                         [](const ::testing::TestParamInfo<CrashPoint>& point) -> std::string {
                             switch (point.param) {
                                 case CrashPoint::kStatement:
                                     return "EachStatement";
                                 case CrashPoint::kSystemCall:
                                     return "EachSystemCall";
                                 default:
                                     return "EachTornWrite";
                             }
                         });

/// Random histories against a model: two generations with the same keys, sums that grow, flushes of some of
/// them, restarts, closings, crashes. The totals always are what the model says.
class UsageHistoryTest : public InMemoryTest {
  protected:
    struct Cell {
        uint64_t allowed = 0;
        uint64_t denied = 0;
        friend bool operator==(const Cell&, const Cell&) = default;
    };
    using Totals = std::map<std::string, Cell>;
    static constexpr uint64_t kKeys = 12;

    uint64_t draw(uint64_t below) { return random_() % below; }

    /// Some cells of both generations grow.
    void grow() {
        for (auto& cells : cells_) {
            for (Cell& cell : cells) {
                cell.allowed += draw(3) == 0 ? draw(1000) : 0;
                cell.denied += draw(5) == 0 ? draw(10) : 0;
            }
        }
    }

    Generation pick(size_t which, bool everything) {
        Generation generation{uids_[which], {}, {}};
        uint64_t total = 0;
        for (uint64_t i = 0; i < kKeys; ++i) {
            const Cell& cell = cells_[which][i];
            total += cell.allowed;
            if (everything || draw(2) == 0) {
                generation.keys.push_back({digest_of(i), ids_[i], cell.allowed, cell.denied});
            }
        }
        generation.codes.push_back({0, total});
        return generation;
    }

    static Totals totals(const std::string& path) {
        Totals found;
        for (const KeyTotal& key : recorded(path).keys) {
            found[key.key_id] = {key.allowed, key.denied};
        }
        return found;
    }

    /// The model: what was flushed of each live generation, plus what closed ones left.
    Totals after(const std::vector<Generation>& flush) const {
        auto flushed = flushed_;
        for (const Generation& generation : flush) {
            for (const KeyCount& key : generation.keys) {
                flushed[generation.uid][std::string(key.key_id)] = {key.allowed, key.denied};
            }
        }
        Totals sums;
        for (const auto& [uid, cells] : flushed) {
            for (const auto& [id, cell] : cells) {
                if (cell.allowed + cell.denied > 0) {
                    sums[id].allowed += cell.allowed;
                    sums[id].denied += cell.denied;
                }
            }
        }
        return sums;
    }

    void adopt(const std::vector<Generation>& flush) {
        for (const Generation& generation : flush) {
            for (const KeyCount& key : generation.keys) {
                flushed_[generation.uid][std::string(key.key_id)] = {key.allowed, key.denied};
            }
        }
    }

    void flush_all(UsageStore& store, const std::vector<Generation>& flush) const {
        std::vector<GenerationCounts> counts;
        counts.reserve(flush.size());
        for (const Generation& generation : flush) {
            counts.push_back(generation.counts());
        }
        const Result<FlushSummary> summary = store.flush(counts, now_s_);
        if (!summary || summary->quarantined != 0) {
            throw std::runtime_error(summary ? "quarantined" : summary.error().message);
        }
    }

    std::mt19937_64 random_{20240607};
    std::vector<std::string> ids_;
    std::vector<GenerationUid> uids_{uid_of(1), uid_of(2)};
    std::vector<std::vector<Cell>> cells_{std::vector<Cell>(kKeys), std::vector<Cell>(kKeys)};
    std::map<GenerationUid, Totals> flushed_;
    int64_t now_s_ = 100'000;
};

TEST_F(UsageHistoryTest, TotalsAreWhatTheModelSays) {
    for (uint64_t i = 0; i < kKeys; ++i) {
        ids_.push_back("key" + std::to_string(i));
    }
    int crashes_before = 0;
    int crashes_after = 0;
    int closings = 0;
    uint8_t next_uid = 3;
    std::optional<UsageStore> store(open_store(path_));
    for (int round = 0; round < 150; ++round) {
        now_s_ += static_cast<int64_t>(draw(90));
        now_s_ -= draw(5) == 0 ? 200 : 0;  // the clock is set back
        grow();
        const bool closing = draw(8) == 0;
        std::vector<Generation> flush = {pick(0, closing), pick(1, false)};
        flush[0].closing = closing;
        const Totals before_flush = after({});
        const Totals after_flush = after(flush);
        const bool crash = draw(3) == 0;
        if (crash) {
            store.reset();
            const auto point = static_cast<CrashPoint>(draw(3));
            const bool killed = crashes_at(point, static_cast<int>(draw(120)) + 1, [&] {
                UsageStore child = open_store(path_);
                flush_all(child, flush);
            });
            const Totals found = totals(path_);
            ASSERT_TRUE(times_agree(path_)) << "round " << round;
            const bool is_after = found == after_flush;
            ASSERT_TRUE(is_after || (killed && found == before_flush)) << "round " << round;
            ++(is_after ? crashes_after : crashes_before);
            store.emplace(open_store(path_));
        }
        flush_all(*store, flush);  // after a crash: the same again, as the restarted daemon would
        ASSERT_TRUE(totals(path_) == after_flush) << "round " << round;
        adopt(flush);
        if (closing) {
            ASSERT_TRUE(store->forget(uids_[0]));
            uids_[0] = uids_[1];
            cells_[0] = cells_[1];
            uids_[1] = uid_of(next_uid++);
            cells_[1].assign(kKeys, {});
            ++closings;
        }
    }
    const std::vector<Generation> last = {pick(0, true), pick(1, true)};
    flush_all(*store, last);
    EXPECT_TRUE(totals(path_) == after(last));
    EXPECT_GT(crashes_before, 3);
    EXPECT_GT(crashes_after, 3);
    EXPECT_GT(closings, 3);
}

}  // namespace
}  // namespace apikeyd::test
