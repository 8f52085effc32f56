// What asked for room is in the table when it is told so, whoever asked first.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "core/table_policies.h"
#include "publisher_fixture.h"
#include "support/no_descriptors.h"

namespace apikeyd {
namespace {

class PublisherTest : public PublisherFixture {
  protected:
    static Change add(uint64_t number) { return {Change::Kind::kUpsert, numbered_row(number)}; }

    /// Makes changes until the live table has no room, and returns the first that it refused.
    Change fill(uint64_t& next) {
        Change change = add(next);
        while (publisher_->make(change)) {
            change = add(++next);
        }
        ++next;
        return change;
    }

    size_t log_lines(const std::string& event) const {
        std::ifstream log(directory_ / "log");
        size_t lines = 0;
        for (std::string line; std::getline(log, line);) {
            lines += line.find(event) != std::string::npos ? 1 : 0;
        }
        return lines;
    }

    bool has(const Change& change) const { return is_in(publisher_->current()->table().view(), change.row); }
};
INSTANTIATE_TEST_SUITE_P(BothLoops, PublisherTest, both_loops(), loop_param_name);

TEST_P(PublisherTest, WhatFoundNoRoomBeforeABuildBeganIsMadeWithoutAReload) {
    publisher_->apply({add(0)}, told());
    run_until([&] { return told_ == 1; });
    uint64_t next = 1;
    const Change refused = fill(next);
    // Another's change starts the build; the refused one asks for room only then.
    const Change other = add(next++);
    publisher_->apply({other}, told());
    ASSERT_TRUE(publisher_->building());
    publisher_->make_room_for(ChangeSet({refused}), told());
    run_until([&] { return told_ == 3; });
    EXPECT_TRUE(has(other));
    EXPECT_TRUE(has(refused));
    for (uint64_t number = 0; number < next; ++number) {
        EXPECT_TRUE(has(add(number))) << number;
    }
}

TEST_P(PublisherTest, ARevocationDuringABuildOutlivesIt) {
    publisher_->apply({add(0), add(1)}, told());
    run_until([&] { return told_ == 1; });
    uint64_t next = 2;
    const Change refused = fill(next);
    publisher_->make_room_for(ChangeSet({refused}), told());
    ASSERT_TRUE(publisher_->building());
    Change revoked = add(0);
    revoked.row.state = KeyState::kRevoked;
    EXPECT_TRUE(publisher_->make(revoked));
    Change late = refused;  // asked for as active, revoked before there was room
    late.row.state = KeyState::kRevoked;
    publisher_->make(late);
    run_until([&] { return told_ == 2; });
    for (const Change& change : {revoked, late}) {
        const apikey::shm::Found slot = found(change.row);
        ASSERT_NE(slot.index, apikey::shm::kNoSlot);
        EXPECT_EQ(apikey::shm::Meta::state(slot.meta), apikey::shm::SlotState::kRevoked);
    }
}

// A source without it is applied in slices, and a key of a later slice has it still.
TEST_P(PublisherTest, AKeyKeepsAPlanThatNoSourceDefinesAnyMoreUntilItGetsAnother) {
    PlanRow gold{.name = "gold",
                 .limits = {{.name = "daily", .form = LimitForm::kQuotaPerDay, .requests = 10}}};
    publisher_->set_policies(std::make_shared<PolicySet>(PolicySet{.plans = {gold}}));
    Change has_it = add(0);
    has_it.row.terms = std::make_shared<const KeyTerms>(KeyTerms{.plan = "gold"});
    publisher_->apply({has_it}, told());
    run_until([&] { return told_ == 1; });
    publisher_->set_policies(std::make_shared<PolicySet>());
    Change comes_with_it = add(1);
    comes_with_it.row.terms = has_it.row.terms;
    uint64_t next = 2;
    publisher_->make_room_for(ChangeSet({fill(next), comes_with_it}), told());
    run_until([&] { return told_ == 2; });
    for (const Change& change : {has_it, comes_with_it}) {
        const std::optional<KeyRow> row = row_in(publisher_->current()->table().view(), change.row);
        ASSERT_TRUE(row && row->terms);
        EXPECT_EQ(row->terms->plan, "gold");
    }
    EXPECT_EQ(policies_of(publisher_->current()->table().view()).plans, std::vector<PlanRow>{gold});
    EXPECT_TRUE(publisher_->make(add(0)));
    EXPECT_TRUE(publisher_->make(add(1)));
    publisher_->make_room_for(ChangeSet({fill(next)}), told());
    run_until([&] { return told_ == 3; });
    EXPECT_TRUE(policies_of(publisher_->current()->table().view()).plans.empty());
}

// One that no table can hold, among others that wait for the same build or for the next.
TEST_P(PublisherTest, AnImpossibleChangeFailsAlone) {
    publisher_->apply({add(0)}, told());
    run_until([&] { return told_ == 1; });
    uint64_t next = 1;
    const Change first = fill(next);
    const Change second = add(next++);
    const Change third = add(next++);
    Change impossible = add(next++);
    impossible.row.terms = std::make_shared<const KeyTerms>(KeyTerms{.plan = "nowhere"});
    int failed = 0;
    const auto refused = [&](const Result<void>& result) {
        EXPECT_FALSE(result);
        ++failed;
    };
    publisher_->make_room_for(ChangeSet({impossible}), refused);
    ASSERT_TRUE(publisher_->building());
    publisher_->make_room_for(ChangeSet({first}), told());
    publisher_->make_room_for(ChangeSet({impossible}), refused);
    publisher_->make_room_for(ChangeSet({second}), told());
    publisher_->make_room_for(ChangeSet({third}), told());
    run_until([&] { return told_ + failed == 6; });
    EXPECT_EQ(failed, 2);
    for (const Change& change : {first, second, third}) {
        EXPECT_TRUE(has(change));
    }
    EXPECT_FALSE(has(impossible));
    EXPECT_FALSE(publisher_->building());
}

// What came during the first load is in the source too. A table of it alone would refuse all other keys.
TEST_P(PublisherTest, WithoutATableNoneIsMadeOfWhatCameDuringABuildThatFailed) {
    Change impossible = add(0);
    impossible.row.terms = std::make_shared<const KeyTerms>(KeyTerms{.plan = "nowhere"});
    int failed = 0;
    const auto refused = [&](const Result<void>& result) {
        EXPECT_FALSE(result);
        ++failed;
    };
    publisher_->make_room_for(ChangeSet({impossible, add(1)}), refused);
    ASSERT_TRUE(publisher_->building());
    publisher_->apply({add(2)}, refused);
    run_until([&] { return failed == 2; });
    EXPECT_EQ(publisher_->current(), nullptr);
    EXPECT_FALSE(publisher_->building());
    publisher_->make_room_for(ChangeSet({add(1), add(2)}), told());
    run_until([&] { return told_ == 1; });
    EXPECT_TRUE(has(add(1)) && has(add(2)));
}

// Each time more than the spare room of the table that is built: the next one has more.
TEST_P(PublisherTest, SteadyAdditionsLetABuildEnd) {
    constexpr unsigned kBuildsMax = 4;
    publisher_->apply({add(0)}, told());
    run_until([&] { return told_ == 1; });
    uint64_t next = 1;
    const uint32_t before = publisher_->current()->number();
    std::vector<std::promise<void>> gates(kBuildsMax + 1);
    const auto close_gate = [&](unsigned number) {
        ASSERT_TRUE(worker_->submit([gate = gates[number].get_future().share()] { gate.wait(); }, [] {}));
    };
    close_gate(0);
    publisher_->make_room_for(ChangeSet({fill(next)}), told());
    uint64_t keys = next;
    unsigned builds = 0;
    while (publisher_->current()->number() == before && builds < kBuildsMax) {
        // The build waits behind a gate, and the one after it behind the next.
        close_gate(builds + 1);
        std::vector<Change> more;
        for (const uint64_t end = keys + keys / 2; keys < end; ++keys) {
            more.push_back(add(keys));
        }
        publisher_->apply(more, told());
        const size_t generations = log_lines("generation.building");
        gates[builds++].set_value();
        run_until([&] {
            return publisher_->current()->number() != before ||
                   log_lines("generation.building") > generations;
        });
    }
    gates[builds].set_value();
    EXPECT_NE(publisher_->current()->number(), before) << "after " << builds << " builds";
    run_until([&] { return !publisher_->building(); });
    for (uint64_t number = 0; number < keys; ++number) {
        ASSERT_TRUE(has(add(number))) << number;
    }
}

/// A live table with room for 10 000 keys and 1 000 plans, and a build under way of a small one.
class PublisherBuildingSmallerTest : public PublisherTest {
  protected:
    static constexpr uint64_t kKeys = 10'000;
    static constexpr size_t kPlans = 1000;
    static constexpr uint64_t kAgain = 1500;  ///< of them: more than the small one has slots

    void SetUp() override {
        PublisherTest::SetUp();
        publisher_->set_policies(plans(kPlans));
        std::vector<Change> all;
        for (uint64_t number = 0; number < kKeys; ++number) {
            all.push_back(add(number));
        }
        publisher_->apply(all, told());
        run_until([&] { return told_ == 1; });
        large_ = publisher_->current();
        for (uint64_t number = 1; number < kKeys; ++number) {
            ASSERT_TRUE(publisher_->make({Change::Kind::kRemove, numbered_row(number)}));
        }
        ASSERT_TRUE(publisher_->set_policies(plans(0)));
        publisher_->make_room_for({}, told());
        ASSERT_TRUE(publisher_->building()) << "of a table that is mostly dead";
    }

    static std::shared_ptr<const PolicySet> plans(size_t count) {
        auto policies = std::make_shared<PolicySet>();
        while (policies->plans.size() < count) {
            PlanRow plan{.name = "plan-" + std::to_string(policies->plans.size()), .limits = {}};
            plan.limits.push_back({.name = "daily", .form = LimitForm::kQuotaPerDay, .requests = 10});
            policies->plans.push_back(std::move(plan));
        }
        return policies;
    }
    void add_again() {
        for (uint64_t number = 1; number < kAgain; ++number) {
            ASSERT_TRUE(publisher_->make(add(number))) << "the large table has its place still";
        }
    }

    /// Runs until another is announced or, without meters that have to move, published at once.
    const apikey::shm::TableView& run_until_announced() {
        run_until([&] { return publisher_->next() != nullptr || publisher_->current() != large_; });
        return (publisher_->next() != nullptr ? publisher_->next() : publisher_->current())->table().view();
    }

    GenerationPtr large_;
};
INSTANTIATE_TEST_SUITE_P(BothLoops, PublisherBuildingSmallerTest, both_loops(), loop_param_name);

TEST_P(PublisherBuildingSmallerTest, NoTableIsAnnouncedThatLacksAKeyOfTheOneBefore) {
    add_again();
    const apikey::shm::TableView& announced = run_until_announced();
    for (uint64_t number = 0; number < kAgain; ++number) {
        ASSERT_TRUE(is_in(announced, add(number).row)) << number;
    }
}

TEST_P(PublisherBuildingSmallerTest, NoTableIsAnnouncedThatLacksAPlanOfTheOneBefore) {
    ASSERT_TRUE(publisher_->set_policies(plans(kPlans)));
    EXPECT_EQ(policies_of(run_until_announced()).plans.size(), kPlans);
}

TEST_P(PublisherBuildingSmallerTest, WhoWaitsForATableThatIsThrownAwayIsToldOfTheNext) {
    // Active when it was asked for, revoked since: the next build must know it as it is now.
    const Change asked = add(kKeys);
    publisher_->make_room_for(ChangeSet({asked}), told());
    add_again();
    Change revoked = asked;
    revoked.row.state = KeyState::kRevoked;
    publisher_->make(revoked);
    run_until([&] { return told_ == 3; });
    EXPECT_EQ(apikey::shm::Meta::state(found(asked.row).meta), apikey::shm::SlotState::kRevoked);
}

// What a newer daemon cannot read it cannot revoke in: while a server maps it, nobody is told that it did.
TEST_P(PublisherTest, ARevocationThatAForeignGenerationCannotHearOfIsNotToldDone) {
    const std::string foreign = directory_.path() / "default" / "table.7";
    std::ofstream(foreign) << "of another layout";
    publisher_.reset();
    auto opened = apikey::shm::Directory::open_and_lock(directory_.path(), "default", kOwnGroup);
    ASSERT_TRUE(opened) << opened.error().message;
    auto publisher = Publisher::open(std::move(*opened), kOwnGroup, 0, *worker_, *log_);
    ASSERT_TRUE(publisher) << publisher.error().message;
    publisher_ = std::move(*publisher);
    ASSERT_EQ(publisher_->unread(), std::vector<uint32_t>{7});

    const int server = open(foreign.c_str(), O_RDONLY | O_CLOEXEC);
    struct flock lock {};
    lock.l_type = F_RDLCK;
    ASSERT_EQ(fcntl(server, F_OFD_SETLK, &lock), 0);
    publisher_->set_policies(std::make_shared<PolicySet>(PolicySet{.scopes = {"orders.read"}}));
    KeyTerms terms;
    terms.scopes = {"orders.read"};
    Change scoped = add(0);
    scoped.row.terms = std::make_shared<const KeyTerms>(terms);
    publisher_->apply({scoped}, told());
    run_until([&] { return told_ == 1; });
    Change revoked = add(0);
    revoked.row.state = KeyState::kRevoked;
    for (const Change& less : {add(0), revoked}) {
        std::string said;
        publisher_->apply(
            {less}, [&](const Result<void>& result) { said = result ? "done" : result.error().message; });
        EXPECT_NE(said.find("table.7, which this daemon cannot change; restart them"), std::string::npos)
            << said;
    }
    EXPECT_EQ(apikey::shm::Meta::state(found(revoked.row).meta), apikey::shm::SlotState::kRevoked)
        << "but where it reaches it is in force";
    close(server);
    publisher_->apply({revoked}, told());
    EXPECT_EQ(told_, 2) << "nobody maps the foreign one any more";
}

// Its limits would begin anew in another generation.
TEST_P(PublisherTest, AStartWithoutADescriptorForTheMetersFailsAndTheNextGoesOn) {
    publisher_->apply({add(0)}, told());
    run_until([&] { return told_ == 1; });
    const uint32_t generation = publisher_->current()->number();
    publisher_.reset();
    {
        const apikey::test::NoDescriptors beyond_directory_lock_control_and_table(4);
        const auto opened = try_to_open_publisher();
        ASSERT_FALSE(opened);
        EXPECT_NE(opened.error().message.find("cells." + std::to_string(generation) + ": cannot be opened"),
                  std::string::npos)
            << opened.error().message;
    }
    open_publisher();
    ASSERT_NE(publisher_->current(), nullptr);
    EXPECT_EQ(publisher_->current()->number(), generation);
    EXPECT_NE(publisher_->current()->cells().base, nullptr);
    EXPECT_FALSE(publisher_->building());
}

// The next daemon takes a table with a number above what control names for a build that was never announced,
// and removes it: none that servers still map may have such a number, not even one that this daemon could not
// read.
TEST_P(PublisherTest, NumbersRiseAboveWhatCannotBeRead) {
    constexpr uint32_t kAheadOfTheClock = 4'000'000'000;
    std::ofstream(directory_.path() / "default" / ("table." + std::to_string(kAheadOfTheClock)))
        << "unreadable";
    publisher_.reset();
    auto opened = apikey::shm::Directory::open_and_lock(directory_.path(), "default", kOwnGroup);
    ASSERT_TRUE(opened) << opened.error().message;
    auto publisher = Publisher::open(std::move(*opened), kOwnGroup, 0, *worker_, *log_);
    ASSERT_TRUE(publisher) << publisher.error().message;
    publisher_ = std::move(*publisher);
    ASSERT_EQ(publisher_->unread(), std::vector<uint32_t>{kAheadOfTheClock});
    publisher_->apply({add(0)}, told());
    run_until([&] { return told_ == 1; });
    EXPECT_GT(publisher_->current()->number(), kAheadOfTheClock);
}

}  // namespace
}  // namespace apikeyd
