// Promise: top sees what every server counts, through growth and replacement, and changes nothing.

#include "tools/top/observer.h"

#include <gtest/gtest.h>

#include "tests/support/test_instance.h"

namespace apikeyd::top {
namespace {

namespace shm = apikey::shm;
using apikey::test::make_key;
using apikey::test::TestInstance;
using apikey::test::TestKey;

class TopObserver : public testing::Test {
  protected:
    void count(const shm::Generation& generation, const TestKey& key, bool allowed, unsigned times) {
        for (unsigned i = 0; i < times; ++i) {
            count_key(generation.cells(), TestInstance::slot_index(generation, key), i, allowed);
            count_code(generation.cells(), allowed ? 0 : 3, i);
        }
    }
    /// A look and a walk, and what they say since the ones before.
    Activity step() {
        const std::optional<Look> before = last_;
        last_ = observer_.look();
        rates_ = rates_between(before, *last_);
        return observer_.walk(*last_, Sort::kTotal, 10);
    }
    uint64_t counted(const Activity& activity, const TestKey& key) {
        double per_s = 0;
        for (const KeyRate& one : activity.keys) {
            per_s += one.id == key.id ? one.allowed + one.denied : 0;
        }
        return static_cast<uint64_t>(per_s * activity.seconds + 0.5);
    }
    uint64_t total() { return static_cast<uint64_t>(rates_.total * rates_.seconds + 0.5); }

    TestInstance instance_{{.capacity_keys = 100}};
    TestKey key_ = make_key();
    Observer observer_{instance_.path(), shm::kAnyOwner};
    std::optional<Look> last_;
    CodeRates rates_;
};

TEST_F(TopObserver, SeesWhatWasCountedSinceTheLookBefore) {
    ASSERT_TRUE(instance_.add(key_, {.owner = "acme", .name = "CI"}));
    count(instance_.current(), key_, true, 100);
    EXPECT_TRUE(step().keys.empty()) << "what was counted before the first look is no rate";
    count(instance_.current(), key_, true, 7);
    count(instance_.current(), key_, false, 2);
    const Activity activity = step();
    EXPECT_EQ(total(), 9u);
    EXPECT_EQ(counted(activity, key_), 9u);
    EXPECT_EQ(activity.active, 1u);
    EXPECT_EQ(activity.keys[0].owner, "acme");
    EXPECT_EQ(activity.keys[0].name, "CI");
    EXPECT_EQ(step().active, 0u);
    EXPECT_EQ(total(), 0u);
}

TEST_F(TopObserver, CountsOnInANewGenerationAndInTheOldOneUntilItsEnd) {
    ASSERT_TRUE(instance_.add(key_));
    count(instance_.current(), key_, true, 5);
    step();
    instance_.publish_new_generation();
    count(*instance_.generations().front(), key_, true, 3);
    count(instance_.current(), key_, true, 4);
    Activity activity = step();
    EXPECT_EQ(rates_.note, RateNote::kGeneration);
    EXPECT_EQ(total(), 7u);
    EXPECT_EQ(counted(activity, key_), 7u);
    count(*instance_.generations().front(), key_, true, 6);
    ASSERT_EQ(instance_.drop_unused(), 1u) << "top holds no lock";
    count(instance_.current(), key_, false, 1);
    activity = step();
    EXPECT_EQ(total(), 7u) << "the last counts of a generation that is gone are told";
    EXPECT_EQ(counted(activity, key_), 7u);
    EXPECT_EQ(last_->health.generations, 1u);
    count(instance_.current(), key_, true, 2);
    EXPECT_EQ(counted(step(), key_), 2u);
    EXPECT_EQ(total(), 2u);
}

TEST_F(TopObserver, WithoutAnInstanceItSaysSoAndGoesOnWhenThereIsOne) {
    ASSERT_TRUE(instance_.add(key_));
    step();
    const std::string aside = instance_.path() + ".aside";
    ASSERT_EQ(rename(instance_.path().c_str(), aside.c_str()), 0);
    step();
    EXPECT_EQ(last_->attached, shm::AttachResult::kWaiting);
    ASSERT_EQ(rename(aside.c_str(), instance_.path().c_str()), 0);
    count(instance_.current(), key_, true, 50);
    EXPECT_TRUE(step().keys.empty());
    EXPECT_EQ(last_->attached, shm::AttachResult::kOk);
    EXPECT_EQ(rates_.note, RateNote::kReplaced);
    count(instance_.current(), key_, true, 3);
    EXPECT_EQ(counted(step(), key_), 3u);
}

TEST_F(TopObserver, AnotherInstanceUnderTheNameBeginsAnew) {
    step();
    TestInstance other({.capacity_keys = 10});
    const std::string aside = instance_.path() + ".aside";
    ASSERT_EQ(rename(instance_.path().c_str(), aside.c_str()), 0);
    ASSERT_EQ(rename(other.path().c_str(), instance_.path().c_str()), 0);
    count_code(other.current().cells(), 0, 0, 1000);
    step();
    EXPECT_EQ(rates_.note, RateNote::kReplaced);
    EXPECT_EQ(total(), 0u);
    ASSERT_EQ(rename(instance_.path().c_str(), other.path().c_str()), 0);
    ASSERT_EQ(rename(aside.c_str(), instance_.path().c_str()), 0);
}

TEST_F(TopObserver, ShowsAtMostWhatIsAskedForTheBusiestFirst) {
    std::vector<TestKey> keys = apikey::test::make_keys(30);
    for (const TestKey& key : keys) {
        ASSERT_TRUE(instance_.add(key));
    }
    step();
    for (unsigned i = 0; i < keys.size(); ++i) {
        count(instance_.current(), keys[i], true, i + 1);
    }
    const Activity activity = step();
    EXPECT_EQ(activity.active, 30u);
    ASSERT_EQ(activity.keys.size(), 10u);
    for (unsigned i = 0; i < 10; ++i) {
        EXPECT_EQ(activity.keys[i].id, keys[29 - i].id);
    }
}

}  // namespace
}  // namespace apikeyd::top
