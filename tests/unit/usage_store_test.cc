#include "usage/usage_store.h"

#include <sqlite3.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <optional>

#include "usage_fixture.h"

namespace apikeyd::test {
namespace {

using UsageStoreTest = UsageTest;

TEST_F(UsageStoreTest, DifferencesAddUpToTheLastSums) {
    UsageStore store = open_store(path_);
    Generation generation{
        uid_of(1), {{digest_of(1), "one", 5, 1}, {digest_of(2), "two", 0, 3}}, {{0, 5}, {4, 4}}};
    FlushSummary summary = flush_one(store, generation, 1000);
    EXPECT_EQ(summary.keys_changed, 2U);
    EXPECT_EQ(summary.allowed_added, 5U);
    EXPECT_EQ(summary.denied_added, 4U);
    EXPECT_EQ(summary.quarantined, 0U);

    generation.keys[0].allowed = 25;
    generation.codes[0].total = 25;
    summary = flush_one(store, generation, 2000);
    EXPECT_EQ(summary.keys_changed, 1U);
    EXPECT_EQ(summary.allowed_added, 20U);
    EXPECT_EQ(summary.denied_added, 0U);
    const Recorded expected{{{"one", 25, 1, 2000}, {"two", 0, 3, 1000}}, {{0, 25}, {4, 4}}};
    EXPECT_EQ(recorded(path_), expected);
}

TEST_F(UsageStoreTest, ARepeatedFlushAddsNothing) {
    UsageStore store = open_store(path_);
    const Generation generation{uid_of(1), {{digest_of(1), "one", 5, 1}}, {{0, 6}}};
    flush_one(store, generation, 1000);
    const Recorded once = recorded(path_);
    const FlushSummary summary = flush_one(store, generation, 2000);
    EXPECT_EQ(summary.keys_changed, 0U);
    EXPECT_EQ(summary.allowed_added + summary.denied_added + summary.quarantined, 0U);
    EXPECT_EQ(recorded(path_), once);
}

TEST_F(UsageStoreTest, TheSameKeyTwiceInOneFlushCountsItsLargestSumOnce) {
    UsageStore store = open_store(path_);
    const Generation generation{uid_of(1), {{digest_of(1), "one", 5, 1}, {digest_of(1), "one", 5, 1}}, {}};
    EXPECT_EQ(flush_one(store, generation).allowed_added, 5U);
    EXPECT_EQ(recorded(path_).keys, (std::vector<KeyTotal>{{"one", 5, 1, 1000}}));
}

TEST_F(UsageStoreTest, GenerationsOfOneKeyAddUp) {
    UsageStore store = open_store(path_);
    const Generation older{uid_of(1), {{digest_of(1), "one", 5, 1}}, {{0, 5}}};
    const Generation newer{uid_of(2), {{digest_of(1), "one", 7, 2}}, {{0, 7}}};
    const GenerationCounts both[] = {older.counts(), newer.counts()};
    const Result<FlushSummary> summary = store.flush(both, 1000);
    ASSERT_TRUE(summary) << summary.error().message;
    EXPECT_EQ(summary->allowed_added, 12U);
    EXPECT_EQ(recorded(path_), (Recorded{{{"one", 12, 3, 1000}}, {{0, 12}}}));
    EXPECT_EQ(flush_one(store, newer).keys_changed, 0U);
}

TEST_F(UsageStoreTest, ARevivedSlotGoesOnUnderItsNewId) {
    UsageStore store = open_store(path_);
    Generation generation{uid_of(1), {{digest_of(1), "old", 5, 0}}, {}};
    flush_one(store, generation);
    generation.keys[0] = {digest_of(1), "new", 8, 0};
    flush_one(store, generation);
    EXPECT_EQ(recorded(path_).keys, (std::vector<KeyTotal>{{"new", 3, 0, 1000}, {"old", 5, 0, 1000}}));
}

TEST_F(UsageStoreTest, ARestartGoesOnFromTheBaselines) {
    Generation generation{uid_of(1), {{digest_of(1), "one", 5, 1}}, {{0, 6}}};
    {
        UsageStore store = open_store(path_);
        flush_one(store, generation);
    }
    UsageStore store = open_store(path_);
    EXPECT_EQ(flush_one(store, generation).keys_changed, 0U);
    generation.keys[0].allowed = 6;
    EXPECT_EQ(flush_one(store, generation).allowed_added, 1U);
    EXPECT_EQ(recorded(path_).keys, (std::vector<KeyTotal>{{"one", 6, 1, 1000}}));
}

TEST_F(UsageStoreTest, LastUsedNeverGoesBack) {
    UsageStore store = open_store(path_);
    Generation generation{uid_of(1), {{digest_of(1), "one", 1, 0}}, {}};
    flush_one(store, generation, 2000);
    generation.keys[0].allowed = 2;
    flush_one(store, generation, 1500);  // the clock was stepped back
    EXPECT_EQ(recorded(path_).keys.at(0).last_used_s, 2000);
}

TEST_F(UsageStoreTest, AClosedGenerationAddsNothingEvenAfterItIsForgotten) {
    UsageStore store = open_store(path_);
    Generation generation{uid_of(1), {{digest_of(1), "one", 5, 1}}, {{0, 6}}, true};
    EXPECT_EQ(flush_one(store, generation).allowed_added, 5U);
    EXPECT_TRUE(store.is_closed(uid_of(1)).value());
    EXPECT_EQ(query_int(path_, "SELECT generation FROM closed"), 7);
    const Recorded after = recorded(path_);

    generation.keys[0].allowed = 50;
    generation.codes[0].total = 50;
    EXPECT_EQ(flush_one(store, generation).keys_changed, 0U);
    const std::string of_keys = "SELECT (SELECT count(*) FROM baselines) + (SELECT count(*) FROM recent)";
    EXPECT_EQ(query_int(path_, of_keys), 1);
    ASSERT_TRUE(store.forget(uid_of(1)));
    EXPECT_EQ(query_int(path_, of_keys + " + (SELECT count(*) FROM code_baselines)"), 0);
    EXPECT_EQ(flush_one(store, generation).keys_changed, 0U);
    EXPECT_EQ(recorded(path_), after);
    EXPECT_EQ(query_int(path_, "SELECT count(*) FROM closed WHERE generation = 7"), 1);
}

TEST_F(UsageStoreTest, ForgettingClosesWhatWasNeverClosedAndLeavesOthersAlone) {
    UsageStore store = open_store(path_);
    const Generation vanished{uid_of(1), {{digest_of(1), "one", 5, 1}}, {}};
    const Generation only_codes{uid_of(3), {}, {{0, 6}}};
    const Generation live{uid_of(2), {{digest_of(1), "one", 7, 0}, {digest_of(2), "two", 1, 0}}, {{0, 7}}};
    flush_one(store, vanished);
    flush_one(store, only_codes);
    flush_one(store, live);
    EXPECT_EQ(store.generations_with_baselines().value(),
              (std::vector<GenerationUid>{uid_of(1), uid_of(2), uid_of(3)}));
    ASSERT_TRUE(store.forget(uid_of(1)));
    ASSERT_TRUE(store.forget(uid_of(3)));
    EXPECT_EQ(store.generations_with_baselines().value(), std::vector<GenerationUid>{uid_of(2)});
    EXPECT_TRUE(store.is_closed(uid_of(1)).value());
    EXPECT_FALSE(store.is_closed(uid_of(2)).value());
    EXPECT_EQ(flush_one(store, vanished).keys_changed, 0U);
    EXPECT_EQ(flush_one(store, live).keys_changed, 0U);
}

TEST_F(UsageStoreTest, AnImplausibleCellIsQuarantinedAndComesBackFromItsOldBaseline) {
    UsageStore store = open_store(path_);
    Generation generation{
        uid_of(1), {{digest_of(1), "one", 100, 10}, {digest_of(2), "two", 1, 0}}, {{0, 100}}};
    flush_one(store, generation);
    const Recorded before = recorded(path_);

    const KeyCount unbelievable[] = {
        {digest_of(1), "one", 100 + kImplausibleJump + 1, 11},             // a jump
        {digest_of(1), "one", 101, std::numeric_limits<uint64_t>::max()},  // beyond SQLite's integers
        {digest_of(1), "one", 99, 11},                                     // a fall
        {digest_of(1), "one", 101, 9},                                     // the other word falls
    };
    for (const KeyCount& cell : unbelievable) {
        generation.keys[0] = cell;
        const FlushSummary summary = flush_one(store, generation, 3000);
        EXPECT_EQ(summary.quarantined, 1U);
        EXPECT_EQ(summary.quarantined_new, cell.allowed > kImplausibleJump ? 1U : 0U);  // the first one only
        EXPECT_EQ(summary.allowed_added + summary.denied_added, 0U);
        EXPECT_EQ(recorded(path_), before);
    }
    EXPECT_EQ(query_int(path_, "SELECT count(*) FROM quarantined WHERE seen_s = 3000 AND denied = 11"), 1);
    EXPECT_EQ(query_int(path_, "SELECT allowed FROM baselines ORDER BY allowed DESC"), 100);

    generation.keys[0] = {digest_of(1), "one", 100 + kImplausibleJump, 10};  // the largest that is believed
    EXPECT_EQ(flush_one(store, generation).allowed_added, kImplausibleJump);
    generation.codes[0].total = 99;
    EXPECT_EQ(flush_one(store, generation).quarantined, 1U);
    EXPECT_EQ(recorded(path_).codes, (std::vector<CodeCount>{{0, 100}}));
}

TEST_F(UsageStoreTest, AQuarantinedCellDoesNotHoldUpOthers) {
    UsageStore store = open_store(path_);
    const Generation generation{
        uid_of(1), {{digest_of(1), "one", ~0ULL, 0}, {digest_of(2), "two", 4, 0}}, {}};
    const FlushSummary summary = flush_one(store, generation);
    EXPECT_EQ(summary.quarantined, 1U);
    EXPECT_EQ(recorded(path_).keys, (std::vector<KeyTotal>{{"two", 4, 0, 1000}}));
}

TEST_F(UsageStoreTest, EvidenceIsBounded) {
    UsageStore store = open_store(path_);
    Generation generation{uid_of(1), {}, {}};
    for (uint64_t i = 0; i < kQuarantinedRowsMax + 50; ++i) {
        generation.keys.push_back({digest_of(i), "scribbled", ~0ULL, 0});
    }
    const FlushSummary summary = flush_one(store, generation);
    EXPECT_EQ(summary.quarantined, static_cast<uint64_t>(kQuarantinedRowsMax + 50));
    EXPECT_EQ(summary.quarantined_new, static_cast<uint64_t>(kQuarantinedRowsMax));
    EXPECT_EQ(query_int(path_, "SELECT count(*) FROM quarantined"), kQuarantinedRowsMax);
}

TEST_F(UsageStoreTest, TotalsStopAtTheLargestInteger) {
    UsageStore store = open_store(path_);
    Generation generation{uid_of(1), {{digest_of(1), "one", 1, 1}}, {{0, 1}}};
    flush_one(store, generation);
    ASSERT_TRUE(store.flush({}, 2000));  // moves the recent row
    execute(path_,
            "UPDATE totals SET allowed = 9223372036854775800; UPDATE codes SET total = 9223372036854775800");
    generation.keys[0].allowed = 101;
    generation.codes[0].total = 101;
    flush_one(store, generation);
    constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    const Recorded largest{{{"one", kMax, 1, 1000}}, {{0, kMax}}};
    EXPECT_EQ(recorded(path_), largest);
    ASSERT_TRUE(store.flush({}, 3000));
    ASSERT_EQ(query_int(path_, "SELECT count(*) FROM recent"), 0);
    EXPECT_EQ(recorded(path_), largest);
}

// Baselines are remembered, but the file has the last word.
TEST_F(UsageStoreTest, ABaselineThatWasChangedByHandIsBelieved) {
    UsageStore store = open_store(path_);
    Generation generation{uid_of(1), {{digest_of(1), "one", 5, 1}}, {}};
    flush_one(store, generation);
    execute(path_, "UPDATE recent SET allowed = 3");
    EXPECT_EQ(flush_one(store, generation).allowed_added, 2U);
    EXPECT_EQ(flush_one(store, generation).allowed_added, 0U);
}

TEST_F(UsageStoreTest, IdsAreStoredByteForByteAndOrderedByBytes) {
    using std::string_literals::operator""s;
    const std::vector<std::string> ids = {"",      "\x01"s, "a"s,    "a\0"s,      "a\0b"s,
                                          "a\nb"s, "it's"s, "x\"y"s, "\xc3\xa9"s, "\xff\xfe"s};
    UsageStore store = open_store(path_);
    Generation generation{uid_of(1), {}, {}};
    for (size_t i = 0; i < ids.size(); ++i) {
        generation.keys.push_back({digest_of(i), ids[i], i + 1, 0});
    }
    generation.keys[0].key_id = std::string_view();  // with a null pointer
    flush_one(store, generation);
    const std::vector<KeyTotal> keys = recorded(path_).keys;
    ASSERT_EQ(keys.size(), ids.size());
    UsageReader reader = open_reader(path_);
    for (size_t i = 0; i < ids.size(); ++i) {
        EXPECT_EQ(keys[i], (KeyTotal{ids[i], i + 1, 0, 1000}));
        EXPECT_EQ(reader.total(ids[i]).value(), keys[i]);
    }
}

// ---- quotas ----

using apikey::shm::LimitKind;

constexpr int64_t kHour_s = 3600;
constexpr int64_t kNow_s = 1'700'000'000;  // 14 November 2023, 22:13:20
constexpr auto kNowHour = static_cast<uint32_t>(kNow_s / kHour_s);
const QuotaName kHourly{"free", "calls", LimitKind::kHour};

/// What a key with this digest had taken; `digest` must live on.
QuotaCount of_key(const QuotaName& name, const KeyDigest& digest, uint32_t period, uint64_t used) {
    return {&name, {reinterpret_cast<const char*>(digest.data()), digest.size()}, false, period, used};
}

class UsageQuotaTest : public UsageTest {
  protected:
    void put(const std::vector<QuotaCount>& quotas, int64_t now_s = kNow_s) {
        flush_one(store(), Generation{uid_of(1), {}, {}, false, quotas}, now_s);
    }
    /// What a start is told, without the holder.
    std::vector<std::string> read(int64_t now_s = kNow_s) {
        std::vector<std::string> all;
        const auto note = [&](const QuotaCount& count) {
            EXPECT_EQ(count.name->kind, LimitKind::kHour);
            all.push_back(std::to_string(count.period) + " " + std::to_string(count.used));
        };
        const Result<void> told = store().for_each_quota(note, now_s);
        EXPECT_TRUE(told) << told.error().message;
        return all;
    }
    UsageStore& store() {
        if (!store_) {
            store_.emplace(open_store(path_));
        }
        return *store_;
    }

    KeyDigest digest_ = digest_of(1);
    std::optional<UsageStore> store_;
};

TEST_F(UsageQuotaTest, WhoseAQuotaIsGoesByHolderPlanLimitAndKind) {
    const KeyDigest other = digest_of(2);
    const std::string owner(16, 'x');  // as long as a digest
    const QuotaName names[] = {kHourly,
                               {"free", "calls", LimitKind::kDay},
                               {"free", "call", LimitKind::kHour},
                               {"freecalls", "", LimitKind::kHour}};
    std::vector<QuotaCount> quotas = {of_key(kHourly, other, kNowHour, 50)};
    for (size_t i = 0; i < std::size(names); ++i) {
        quotas.push_back(of_key(names[i], digest_, kNowHour, i + 1));
        quotas.push_back({&names[i], owner, true, kNowHour, 10 * (i + 1)});
    }
    put(quotas);
    EXPECT_EQ(recorded(path_).quotas.size(), quotas.size());
    size_t told = 0;
    const auto look = [&](const QuotaCount& count) {
        const auto wanted = std::find_if(quotas.begin(), quotas.end(), [&](const QuotaCount& one) {
            return *one.name == *count.name && one.holder == count.holder && one.of_owner == count.of_owner;
        });
        ASSERT_NE(wanted, quotas.end());
        EXPECT_EQ(count.used, wanted->used);
        EXPECT_EQ(count.period, wanted->period);
        ++told;
    };
    ASSERT_TRUE(store().for_each_quota(look, kNow_s));
    EXPECT_EQ(told, quotas.size());
}

TEST_F(UsageQuotaTest, TheLaterPeriodAndInItTheLargerCountStays) {
    put({of_key(kHourly, digest_, kNowHour, 5)});
    put({of_key(kHourly, digest_, kNowHour, 3), of_key(kHourly, digest_, kNowHour - 1, 90)});
    EXPECT_EQ(read(), std::vector<std::string>{std::to_string(kNowHour) + " 5"});
    put({of_key(kHourly, digest_, kNowHour, 7), of_key(kHourly, digest_, kNowHour, 6)});
    EXPECT_EQ(read(), std::vector<std::string>{std::to_string(kNowHour) + " 7"});
    put({of_key(kHourly, digest_, kNowHour + 1, 1)});
    put({of_key(kHourly, digest_, kNowHour, 8)});
    EXPECT_EQ(read(), std::vector<std::string>{std::to_string(kNowHour + 1) + " 1"});
}

// The clock went two hours back: takers bring their words back to the present with what was counted, and so
// does the store. Else nothing that is taken from now on would be kept, until the clock is there again.
TEST_F(UsageQuotaTest, APeriodOfAClockThatWasSetBackBecomesThePresentOne) {
    put({of_key(kHourly, digest_, kNowHour + 2, 5)}, kNow_s + 2 * kHour_s);
    EXPECT_EQ(read(), std::vector<std::string>{std::to_string(kNowHour + 2) + " 5"});
    put({of_key(kHourly, digest_, kNowHour, 6)});
    EXPECT_EQ(read(), std::vector<std::string>{std::to_string(kNowHour) + " 6"});
    put({of_key(kHourly, digest_, kNowHour + 2, 9)}, kNow_s + 2 * kHour_s);
    put({of_key(kHourly, digest_, kNowHour, 7)});
    EXPECT_EQ(read(), std::vector<std::string>{std::to_string(kNowHour) + " 9"});
}

TEST_F(UsageQuotaTest, PastPeriodsGo) {
    const QuotaName daily{"free", "calls", LimitKind::kDay};
    const QuotaName monthly{"free", "calls", LimitKind::kMonth};
    constexpr uint32_t kMonth = 2023 * 12 + 11;
    put({of_key(kHourly, digest_, kNowHour, 1), of_key(daily, digest_, kNowHour / 24, 2),
         of_key(monthly, digest_, kMonth, 3)});
    const std::vector<std::string> rows = recorded(path_).quotas;  // by kind
    ASSERT_EQ(rows.size(), 3U);
    const auto left = [&](int64_t now_s) {
        EXPECT_TRUE(store().for_each_quota([](const QuotaCount&) {}, now_s));
        return recorded(path_).quotas;
    };
    EXPECT_EQ(left(kNow_s), rows);
    EXPECT_EQ(left(kNow_s + kHour_s), std::vector(rows.begin() + 1, rows.end()));
    EXPECT_EQ(left(kNow_s + 24 * kHour_s), std::vector(rows.begin() + 2, rows.end()));
    EXPECT_TRUE(left(kNow_s + 31 * 24 * kHour_s).empty());
}

TEST_F(UsageQuotaTest, AClosedGenerationSaysNothingMore) {
    flush_one(store(), Generation{uid_of(1), {}, {}, true, {of_key(kHourly, digest_, kNowHour, 5)}}, kNow_s);
    put({of_key(kHourly, digest_, kNowHour, 9)});
    EXPECT_EQ(read(), std::vector<std::string>{std::to_string(kNowHour) + " 5"});
}

TEST_F(UsageQuotaTest, APastRowThatCannotBeDeletedIsNotTold) {
    put({of_key(kHourly, digest_, kNowHour, 5)});
    sqlite3* other = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &other), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
    EXPECT_TRUE(read(kNow_s + kHour_s).empty());
    EXPECT_EQ(read().size(), 1U);
    ASSERT_EQ(sqlite3_close(other), SQLITE_OK);
}

// ---- failures in between: nothing changes, and a later flush is exact ----

class UsageFailureTest : public UsageTest {
  protected:
    void SetUp() override {
        UsageTest::SetUp();
        const ConnectionSpy spy;
        store_.emplace(open_store(path_));
        connection_ = ConnectionSpy::last();
        flush_one(*store_, Generation{uid_of(1), {{digest_of(0), "id", 1, 0}}, {{0, 1}}});
        for (uint64_t i = 0; i < 2000; ++i) {
            ids_.push_back("key" + std::to_string(i));
        }
        for (uint64_t i = 0; i < ids_.size(); ++i) {
            next_.keys.push_back({digest_of(i), ids_[i], 2, 1});
            next_.quotas.push_back({&kHourly, ids_[i], true, kNowHour, 2});
        }
    }

    /// The flush fails in these words and leaves everything as it was.
    void expect_failure(const std::string& words) {
        const Recorded before = recorded(path_);
        const GenerationCounts counts = next_.counts();
        const Result<FlushSummary> summary = store_->flush({&counts, 1}, 1000);
        ASSERT_FALSE(summary);
        EXPECT_NE(summary.error().message.find(words), std::string::npos) << summary.error().message;
        EXPECT_NE(summary.error().message.find(path_), std::string::npos) << summary.error().message;
        EXPECT_EQ(recorded(path_), before);
    }

    void expect_exact() {
        flush_one(*store_, next_);
        const Recorded after = recorded(path_);
        uint64_t allowed = 0;
        for (const KeyTotal& key : after.keys) {
            allowed += key.allowed;
        }
        EXPECT_EQ(allowed, 2 * ids_.size());  // digest 0 had 1 under "id" before
        EXPECT_EQ(after.keys.size(), ids_.size() + 1);
        EXPECT_EQ(after.codes, (std::vector<CodeCount>{{0, 3}}));
        EXPECT_EQ(after.quotas.size(), ids_.size());
        EXPECT_EQ(flush_one(*store_, next_).keys_changed, 0U);
    }

    std::optional<UsageStore> store_;
    sqlite3* connection_ = nullptr;
    std::vector<std::string> ids_;
    Generation next_{uid_of(1), {}, {{0, 3}}};
};

TEST_F(UsageFailureTest, LockedByAnotherConnection) {
    sqlite3* other = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &other), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(other, "BEGIN EXCLUSIVE", nullptr, nullptr, nullptr), SQLITE_OK);
    expect_failure("locked");
    EXPECT_FALSE(store_->forget(uid_of(1)));
    ASSERT_EQ(sqlite3_close(other), SQLITE_OK);
    expect_exact();
}

TEST_F(UsageFailureTest, PageLimitReached) {
    ASSERT_EQ(sqlite3_exec(connection_, "PRAGMA max_page_count = 20", nullptr, nullptr, nullptr), SQLITE_OK);
    expect_failure("no space left");
    ASSERT_EQ(sqlite3_exec(connection_, "PRAGMA max_page_count = 1000000", nullptr, nullptr, nullptr),
              SQLITE_OK);
    expect_exact();
}

TEST_F(UsageFailureTest, DiskFull) {
    {
        const FailingWrites writes(ENOSPC);
        expect_failure("no space left");
    }
    expect_exact();
}

TEST_F(UsageFailureTest, DiskBroken) {
    {
        const FailingWrites writes(EIO);
        expect_failure("the disk failed");
    }
    expect_exact();
}

TEST_F(UsageFailureTest, WritesForbidden) {
    ASSERT_EQ(sqlite3_exec(connection_, "PRAGMA query_only = ON", nullptr, nullptr, nullptr), SQLITE_OK);
    expect_failure("not writable");
    ASSERT_EQ(sqlite3_exec(connection_, "PRAGMA query_only = OFF", nullptr, nullptr, nullptr), SQLITE_OK);
    expect_exact();
}

TEST_F(UsageFailureTest, CommitsAreSyncedAtOnce) {
    sqlite3_stmt* statement = nullptr;
    ASSERT_EQ(sqlite3_prepare_v2(connection_, "PRAGMA synchronous", -1, &statement, nullptr), SQLITE_OK);
    ASSERT_EQ(sqlite3_step(statement), SQLITE_ROW);
    EXPECT_EQ(sqlite3_column_int(statement, 0), 2);  // FULL: each commit syncs the log
    sqlite3_finalize(statement);
}

TEST_F(UsageStoreTest, AReaderKnowsHowMuchOfAGenerationIsIn) {
    UsageStore store = open_store(path_);
    EXPECT_EQ(open_reader(path_).code_baselines(uid_of(1)).value(), std::vector<CodeCount>{});
    flush_one(store, {uid_of(1), {}, {{0, 5}, {3, 2}}});
    flush_one(store, {uid_of(2), {}, {{0, 7}}});
    EXPECT_EQ(open_reader(path_).code_baselines(uid_of(1)).value(), (std::vector<CodeCount>{{0, 5}, {3, 2}}));
    flush_one(store, {uid_of(1), {}, {{0, 6}, {3, 2}}, true});
    EXPECT_EQ(open_reader(path_).code_baselines(uid_of(1)).value(), std::nullopt);
}

}  // namespace
}  // namespace apikeyd::test
