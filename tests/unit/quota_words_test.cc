// Quotas outlast a reboot: what the last flush brought is in the next table, and nothing that was scribbled,
// or taken of another limit, is taken for it.

#include "core/quota_words.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "apikey/apikey.h"
#include "base/clock.h"
#include "core/flusher.h"
#include "plain_row.h"
#include "publisher_fixture.h"
#include "shm/meters.h"
#include "shm/quota_period.h"
#include "usage_fixture.h"

namespace apikeyd {
namespace {

namespace shm = apikey::shm;

constexpr uint64_t kHourLeftMin_ns = 10'000'000'000;

class QuotaWordsTest : public PublisherFixture {
  protected:
    void SetUp() override {
        const auto hour_left_ns = [](uint64_t now_ns) {
            return shm::period_end_ns(shm::LimitKind::kHour, now_ns) - now_ns;
        };
        while (hour_left_ns(realtime_now_ns()) < kHourLeftMin_ns) {
            sleep(1);  // a test's requests are of one hour
        }
        PublisherFixture::SetUp();
        auto started = Worker::start(*loop_);
        ASSERT_TRUE(started) << started.error().message;
        flush_worker_ = std::move(*started);
        start_flusher();
    }
    void TearDown() override {
        apikey_close(client_);
        PublisherFixture::TearDown();
    }

    /// As a daemon that starts, which adopts a table or restores quotas.
    void start_flusher() {
        auto store = UsageStore::open(store_path());
        ASSERT_TRUE(store) << store.error().message;
        flusher_ = std::make_unique<Flusher>(*publisher_, *flush_worker_, std::move(*store), *log_);
        if (publisher_->current() == nullptr) {
            auto quotas = flusher_->stored_quotas();
            ASSERT_TRUE(quotas) << quotas.error().message;
            publisher_->restore_quotas(std::move(*quotas));
        }
    }
    /// The daemon and all servers end, `lose` takes something of the instance's directory, and it starts
    /// again with the same source.
    void restart(const std::function<void(const std::filesystem::path&)>& lose) {
        start_again(lose);
        publisher_->set_policies(std::make_shared<const PolicySet>(policies_));
        apply(rows_);
    }
    /// The same, before it reads the source.
    void start_again(const std::function<void(const std::filesystem::path&)>& lose) {
        apikey_close(std::exchange(client_, nullptr));
        flusher_.reset();
        publisher_.reset();
        lose(directory_ / "default");
        open_publisher();
        start_flusher();
    }
    static void lose_all(const std::filesystem::path& instance) { std::filesystem::remove_all(instance); }
    void reboot() { restart(lose_all); }

    /// The source says this from now on.
    void set(const PolicySet& policies, const std::vector<PlainRow>& rows) {
        policies_ = policies;
        rows_ = rows;
        publisher_->set_policies(std::make_shared<const PolicySet>(policies));
        apply(rows);
    }
    void apply(const std::vector<PlainRow>& rows) {
        std::vector<Change> changes;
        for (const PlainRow& one : rows) {
            changes.push_back({Change::Kind::kUpsert, one.row});
        }
        const int before = told_;
        publisher_->apply(changes, told());
        run_until([&] { return told_ == before + 1; });
    }
    /// Has a generation built for keys that the live one has no room for.
    void grow() {
        std::vector<PlainRow> many;
        for (unsigned i = 1000; i < 1900; ++i) {
            many.push_back(make_row(i));
        }
        const uint32_t before = publisher_->current()->number();
        apply(many);
        ASSERT_NE(publisher_->current()->number(), before);
    }
    static PlainRow key(unsigned number, KeyTerms terms = {}, const std::string& owner = "") {
        PlainRow made = make_row(number);
        made.row.owner = owner;
        if (!terms.empty()) {
            made.row.terms = std::make_shared<const KeyTerms>(std::move(terms));
        }
        return made;
    }

    apikey_code ask(const PlainRow& presented) {
        if (client_ == nullptr) {
            apikey_options options{};
            options.size = sizeof options;
            options.directory = directory_.path().c_str();
            EXPECT_EQ(apikey_open(&options, &client_), APIKEY_OK);
        }
        apikey_verdict verdict;
        return apikey_validate(client_, presented.text.data(), presented.text.size(), &verdict);
    }
    unsigned passes(const PlainRow& presented, unsigned times) {
        unsigned passed = 0;
        for (unsigned i = 0; i < times; ++i) {
            passed += ask(presented) == APIKEY_VALID ? 1 : 0;
        }
        return passed;
    }

    bool flush() {
        std::optional<bool> flushed;
        flusher_->flush([&](const Result<FlushSummary>& result) { flushed = result.has_value(); });
        run_until([&] { return flushed.has_value(); });
        return *flushed;
    }
    std::string store_path() const { return directory_ / "usage.db"; }
    /// `plan/limit used`, by these two.
    std::vector<std::string> stored() const {
        return test::query_texts(store_path(),
                                 "SELECT plan || '/' || limit_name || ' ' || used FROM quotas ORDER BY 1");
    }
    shm::Word& word_of(const PlainRow& key, uint32_t number) {
        return publisher_->current()->cells().meter(found(key.row).index, number);
    }

    const PolicySet free_{.plans = {{"free", {limit("monthly", "10/month"), limit("fast", "100/h", 3)}}}};
    std::unique_ptr<Worker> flush_worker_;
    std::unique_ptr<Flusher> flusher_;
    PolicySet policies_;
    std::vector<PlainRow> rows_;
    apikey_client* client_ = nullptr;
};
INSTANTIATE_TEST_SUITE_P(Loop, QuotaWordsTest, testing::Values(LoopKind::epoll), loop_param_name);

TEST_P(QuotaWordsTest, TheRestOfEachQuotaPassesAfterAReboot) {
    const PlainRow first = key(1, {.plan = "free"}, "acme");
    const PlainRow second = key(2, {.plan = "free"}, "acme");
    const PlainRow third = key(3, {}, "acme");
    const PlainRow generous =
        key(4, {.plan = "free", .overrides = {limit("daily", "40/day"), limit("hourly", "40/hour")}});
    const PlainRow unlimited = key(5, {.scopes = {"reports.read"}}, "nobody's");
    set({.scopes = {"reports.read"},
         .plans = {{"free", {limit("daily", "10/day"), limit("hourly", "12/hour"), limit("fast", "9/s", 99)}},
                   {"team", {limit("daily", "30/month")}}},
         .owners = {{"other", "team"}, {"acme", "team"}}},
        {first, second, third, generous, unlimited});
    EXPECT_EQ(passes(first, 6), 6u);
    EXPECT_EQ(passes(second, 20), 10u);
    EXPECT_EQ(passes(third, 5), 5u);
    EXPECT_EQ(passes(generous, 39), 39u);
    EXPECT_EQ(passes(unlimited, 3), 3u);
    ASSERT_TRUE(flush());
    EXPECT_EQ(stored(),
              (std::vector<std::string>{"free/daily 10", "free/daily 39", "free/daily 6", "free/hourly 10",
                                        "free/hourly 39", "free/hourly 6", "team/daily 21"}));
    reboot();
    EXPECT_EQ(passes(second, 3), 0u);
    EXPECT_EQ(passes(first, 6), 4u);
    EXPECT_EQ(passes(third, 9), 5u) << "30 together, 25 were spent";
    EXPECT_EQ(passes(generous, 3), 1u);
    EXPECT_EQ(passes(unlimited, 3), 3u);
    EXPECT_EQ(publisher_->current()->table().header().predecessor, 0u);
    ASSERT_TRUE(flush());
    reboot();
    EXPECT_EQ(passes(first, 1) + passes(third, 1) + passes(generous, 1), 0u);
}

TEST_P(QuotaWordsTest, WhatAFailedFlushBroughtComesAgain) {
    const PlainRow limited = key(1, {.plan = "free"}, "acme");
    PolicySet policies = free_;
    policies.owners = {{"acme", "free"}};
    set(policies, {limited});
    EXPECT_EQ(passes(limited, 2), 2u);
    {
        const test::FailingWrites full(ENOSPC);
        EXPECT_FALSE(flush());
    }
    EXPECT_TRUE(stored().empty());
    ASSERT_TRUE(flush());
    EXPECT_EQ(stored(), (std::vector<std::string>{"free/monthly 2", "free/monthly 2"}));
}

TEST_P(QuotaWordsTest, AWordThatMovedLowersNothing) {
    const PlainRow limited = key(1, {.plan = "free"});
    set({.plans = {{"free", {limit("monthly", "10/month")}}}}, {limited});
    EXPECT_EQ(passes(limited, 4), 4u);
    grow();
    EXPECT_EQ(passes(limited, 2), 2u);
    ASSERT_EQ(publisher_->superseded().size(), 1u);
    ASSERT_TRUE(flush());
    EXPECT_EQ(stored(), std::vector<std::string>{"free/monthly 6"});
    apikey_refresh(client_);
    apikey_refresh(client_);  // lets go of the older one
    flusher_->retire_unused();
    run_until([&] { return publisher_->superseded().empty(); });
    EXPECT_EQ(stored(), std::vector<std::string>{"free/monthly 6"});
    reboot();
    EXPECT_EQ(passes(limited, 9), 4u);
}

/// Of a key that was not used since its word moved, the older generation's says it all.
TEST_P(QuotaWordsTest, AWordThatMovedIsBroughtAllTheSame) {
    const PlainRow limited = key(1, {.plan = "free"});
    set({.plans = {{"free", {limit("monthly", "10/month")}}}}, {limited});
    EXPECT_EQ(passes(limited, 4), 4u);
    grow();
    ASSERT_TRUE(flush());
    reboot();
    EXPECT_EQ(passes(limited, 9), 6u);
}

TEST_P(QuotaWordsTest, AnotherLimitBeginsAnewAndAChangedOneGoesOn) {
    const PlainRow limited = key(1, {.plan = "free"});
    const PlainRow own = key(2, {.plan = "free", .overrides = {limit("monthly", "20/month")}});
    set({.plans = {{"free", {limit("monthly", "10/month")}}}}, {limited, own});
    EXPECT_EQ(passes(limited, 4), 4u);
    EXPECT_EQ(passes(own, 12), 12u);
    ASSERT_TRUE(flush());
    for (const LimitRow& other : {limit("monthly", "10/day"), limit("month", "10/month")}) {
        policies_ = {.plans = {{"free", {other}}}};
        rows_ = {limited};
        reboot();
        EXPECT_EQ(passes(limited, 20), 10u) << other.name;
    }
    policies_ = {
        .plans = {{"free", {limit("monthly", "10/month")}}, {"basic", {limit("monthly", "10/month")}}}};
    rows_ = {key(1, {.plan = "basic"})};
    reboot();
    EXPECT_EQ(passes(limited, 20), 10u) << "another plan";
    policies_ = {.plans = {{"free", {limit("first", "30/month"), limit("monthly", "13/month")}}}};
    rows_ = {limited, own};
    reboot();
    EXPECT_EQ(passes(limited, 20), 9u) << "of the same, with more to it";
    EXPECT_EQ(passes(own, 20), 8u) << "of 20, 12 were spent";
}

TEST_P(QuotaWordsTest, ALoweredQuotaIsNotGivenBackWhenItIsRaised) {
    const PlainRow limited = key(1, {.plan = "free"});
    set({.plans = {{"free", {limit("monthly", "10/month")}}}}, {limited});
    EXPECT_EQ(passes(limited, 8), 8u);
    set({.plans = {{"free", {limit("monthly", "5/month")}}}}, {limited});
    ASSERT_TRUE(flush());
    policies_ = {.plans = {{"free", {limit("monthly", "10/month")}}}};
    reboot();
    EXPECT_EQ(passes(limited, 9), 2u);
}

TEST_P(QuotaWordsTest, ScribbledWordsAreBounded) {
    const PlainRow limited = key(1, {.plan = "free"});
    const PlainRow other = key(2, {.plan = "free"});
    set({.plans = {{"free", {limit("monthly", "10/month"), limit("hourly", "10/hour")}}}}, {limited, other});
    EXPECT_EQ(passes(other, 4), 4u);
    const uint64_t hour = shm::period_of(shm::LimitKind::kHour, realtime_now_ns());
    const uint64_t tag = shm::QuotaWord::tag(word_of(other, 1).load());
    const auto scribble = [&](uint32_t number, uint64_t word) {
        count_key(publisher_->current()->cells(), found(limited.row).index, 0, true);
        word_of(limited, number).store(word);
        EXPECT_TRUE(flush());
        return stored();
    };
    ASSERT_TRUE(flush());
    const std::vector<std::string> before = stored();
    EXPECT_EQ(scribble(1, shm::QuotaWord::make(tag, hour, 0)), before) << "of which nothing was taken";
    EXPECT_EQ(scribble(1, shm::QuotaWord::make(tag, hour + 2, 9)), before) << "no taker leaves such a period";
    EXPECT_EQ(scribble(1, shm::QuotaWord::make(tag, hour - 1, 9)), before) << "is over";
    EXPECT_EQ(scribble(1, shm::QuotaWord::make(tag ^ 1, hour, 9)), before) << "another limit's";
    EXPECT_NE(scribble(1, shm::QuotaWord::make(tag, hour, shm::QuotaWord::kUsedMask) | shm::kMovedBit),
              before);
    std::mt19937_64 random(5);
    for (int i = 0; i < 100; ++i) {
        scribble(static_cast<uint32_t>(i % 2), i % 5 == 0 ? ~uint64_t{0} : random());
    }
    EXPECT_EQ(test::query_int(store_path(),
                              "SELECT count(*) FROM quotas WHERE used >= 1 << 34 OR kind = 1 AND "
                              "period NOT BETWEEN " +
                                  std::to_string(hour) + " AND " + std::to_string(hour + 2)),
              0);
    reboot();
    EXPECT_EQ(ask(limited), APIKEY_USAGE_EXCEEDED);
    EXPECT_EQ(passes(other, 9), 6u) << "what others had taken is what it was";
}

TEST_P(QuotaWordsTest, AFileThatNobodyGoesOnWithIsAskedBeforeTheStore) {
    const PlainRow limited = key(1, {.plan = "free"});
    set({.plans = {{"free", {limit("monthly", "10/month")}}}}, {limited});
    EXPECT_EQ(passes(limited, 4), 4u);
    restart([](const std::filesystem::path& instance) {
        std::fstream control(instance / "control", std::ios::in | std::ios::out | std::ios::binary);
        control.seekp(offsetof(shm::Control, boot));
        control.write("of another boot.", sizeof shm::Control::boot);
    });
    ASSERT_EQ(publisher_->current()->table().header().predecessor, 0u);
    EXPECT_EQ(passes(limited, 9), 6u);
}

TEST_P(QuotaWordsTest, KeysAndPlansThatComeDuringTheFirstBuildGoOnToo) {
    const std::vector<PlainRow> limited = {key(1, {.plan = "free"}), key(2, {.plan = "free"})};
    const PolicySet both{.plans = {{"free", {limit("hourly", "9/hour"), limit("daily", "10/day")}}}};
    const PolicySet daily{.plans = {{"free", {limit("daily", "10/day")}}}};
    set(both, limited);
    EXPECT_EQ(passes(limited[0], 4) + passes(limited[1], 4), 8u);
    ASSERT_TRUE(flush());
    start_again(lose_all);
    publisher_->set_policies(std::make_shared<const PolicySet>(both));
    told_ = 0;
    publisher_->apply({{Change::Kind::kUpsert, limited[0].row}}, told());
    ASSERT_TRUE(publisher_->building());
    publisher_->set_policies(std::make_shared<const PolicySet>(daily));
    publisher_->apply({{Change::Kind::kUpsert, limited[1].row}}, told());
    run_until([&] { return told_ == 2; });
    EXPECT_EQ(passes(limited[0], 9), 6u);
    EXPECT_EQ(passes(limited[1], 9), 6u);
}

TEST_P(QuotaWordsTest, WhatWasRestoredGoesOnInTheNextGeneration) {
    const PlainRow limited = key(1, {.plan = "free"});
    set({.plans = {{"free", {limit("monthly", "10/month")}}}}, {limited});
    EXPECT_EQ(passes(limited, 4), 4u);
    ASSERT_TRUE(flush());
    reboot();
    EXPECT_EQ(passes(limited, 3), 3u);
    grow();
    EXPECT_EQ(passes(limited, 9), 3u);
}

}  // namespace
}  // namespace apikeyd
