// What the tool and the source say of one key at once: the later of the two holds, and a revocation in any
// case.

#include "core/reloader.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <new>
#include <optional>

#include "core/table_policies.h"
#include "publisher_fixture.h"
#include "source/row_text.h"
#include "source/snapshot.h"
#include "source/yaml_file.h"

namespace {

/// While it is set, no thread but the main one gets large pieces of memory.
std::atomic<bool> g_no_memory{false};
const pthread_t g_main_thread = pthread_self();

}  // namespace

[[gnu::noinline]] void* operator new(size_t bytes) {  // inlined, g++ takes the pair for a mismatched one
    constexpr size_t kLarge = 65536;
    if (bytes > kLarge && g_no_memory && pthread_equal(pthread_self(), g_main_thread) == 0) {
        throw std::bad_alloc();
    }
    void* const memory = std::malloc(bytes != 0 ? bytes : 1);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    return memory;
}
// Replaced too: the sanitizers' own would not go with our delete.
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
    return std::malloc(bytes != 0 ? bytes : 1);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}

namespace apikeyd {
namespace {

class ReloaderTest : public PublisherFixture {
  protected:
    void SetUp() override {
        PublisherFixture::SetUp();
        auto loader = Worker::start(*loop_);
        ASSERT_TRUE(loader) << loader.error().message;
        loader_ = std::move(*loader);
        row_.environment = "live";
        before_ = write();
        reloader_ = std::make_unique<Reloader>(
            *loop_, *publisher_, *loader_,
            ReloaderOptions{std::make_shared<YamlFile>(directory_ / "keys.yaml"), 50}, *log_);
        reload();
    }

    /// Makes the file say what row_ says.
    Fingerprint write() const { return write(policies_, {row_}); }
    Fingerprint write(const std::string& policies, const std::vector<KeyRow>& rows) const {
        std::string text = policies + "keys:\n";
        for (const KeyRow& row : rows) {
            text += block_key_row(row, 2, "\n");
        }
        std::ofstream(directory_ / "new") << text;
        std::filesystem::rename(directory_ / "new", directory_ / "keys.yaml");
        return fingerprint(text);
    }
    Reloader::Done count() {
        return [this](const Result<ReloadReport>& report) {
            EXPECT_TRUE(report) << report.error().message;
            ++loads_;
        };
    }
    void reload() {
        const int wanted = loads_ + 1;
        reloader_->request(true, count());
        run_until([&] { return loads_ == wanted; });
    }
    /// Makes a change that is durable as `after` already; what was told of it.
    std::string apply_policies(const std::vector<PolicyChange>& changes, const Fingerprint& before,
                               const Fingerprint& after) {
        std::string said;
        reloader_->apply_policies(changes, before, after, [&](const Result<void>& result) {
            said = result ? "done" : result.error().message;
        });
        run_until([&] { return !said.empty(); });
        return said;
    }
    /// The number of the row's owner, whose limits it shares; 0: none.
    uint32_t owner_of(const KeyRow& row) const {
        apikey::shm::Policy policy;
        read_policy(publisher_->current()->table().view(), found(row).meta, &policy);
        return policy.owner;
    }

    apikey::shm::SlotState state() const { return apikey::shm::Meta::state(found(row_).meta); }

    std::unique_ptr<Worker> loader_;
    std::unique_ptr<Reloader> reloader_;
    KeyRow row_ = numbered_row(1);
    std::string policies_;  // what stands before the keys
    Fingerprint before_{};
    int loads_ = 0;
};
INSTANTIATE_TEST_SUITE_P(BothLoops, ReloaderTest, both_loops(), loop_param_name);

// Also of the first load that succeeds, where a daemon began without its source.
TEST_P(ReloaderTest, WhoAskedIsAnsweredWhenTheSnapshotSaysItToo) {
    const auto writer = Worker::start(*loop_);
    ASSERT_TRUE(writer) << writer.error().message;
    const SnapshotOptions options{directory_ / "keys.snapshot", "yaml:other.yaml", 3600};
    const auto kept_state = [&] {
        std::optional<KeyState> state;
        const auto kept = Snapshot(options).load([&](const KeyRow& row) { state = row.state; });
        EXPECT_TRUE(kept) << kept.error().message;
        return state;
    };
    const auto write_other = [&] {
        const Fingerprint written = write();
        std::filesystem::rename(directory_ / "keys.yaml", directory_ / "other.yaml");
        return written;
    };
    const auto snapshot = std::make_shared<Snapshot>(options);
    const auto source =
        std::make_shared<SnapshottedSource>(std::make_shared<YamlFile>(directory_ / "other.yaml"), snapshot);
    Reloader reloader(*loop_, *publisher_, *loader_,
                      ReloaderOptions{source, 50, nullptr, snapshot, writer->get()}, *log_);
    int answers = 0;
    reloader.request(false, [&](const Result<ReloadReport>& report) {
        EXPECT_FALSE(report);
        ++answers;
    });
    run_until([&] { return answers == 1; });
    const Fingerprint before = write_other();
    reloader.request(false, [&](const Result<ReloadReport>& report) {
        EXPECT_TRUE(report) << report.error().message;
        EXPECT_EQ(kept_state(), KeyState::kActive);
        ++answers;
    });
    run_until([&] { return answers == 2; });
    row_.state = KeyState::kRevoked;
    reloader.apply({{Change::Kind::kUpsert, row_}}, before, write_other(), [&](const Result<void>& result) {
        EXPECT_TRUE(result) << result.error().message;
        EXPECT_EQ(kept_state(), KeyState::kRevoked);
        ++answers;
    });
    run_until([&] { return answers == 3; });
}

// Answers go out in the middle of a load's end, and a client may have its next request waiting.
TEST_P(ReloaderTest, AChangeIsNotOverwrittenByALoadThatBeganBeforeIt) {
    for (int round = 0; round < 20; ++round) {
        SCOPED_TRACE(round);
        row_.state = KeyState::kActive;
        before_ = write();
        reload();
        loads_ = 0;
        // Two requests of one load, each answered by another request: the second of these waits for the
        // first.
        reloader_->request(true, [&](const Result<ReloadReport>& report) {
            count()(report);
            reloader_->request(true, [&](const Result<ReloadReport>& second) {
                count()(second);
                row_.state = KeyState::kDisabled;
                const Fingerprint after = write();
                reloader_->apply({{Change::Kind::kUpsert, row_}}, before_, after, told());
            });
        });
        reloader_->request(true, [&](const Result<ReloadReport>& report) {
            count()(report);
            reloader_->request(true, count());
        });
        run_until([&] { return loads_ == 4; });
        reload();
        EXPECT_EQ(state(), apikey::shm::SlotState::kDisabled);
    }
}

TEST_P(ReloaderTest, NoChangeTakesARevocationBack) {
    row_.state = KeyState::kRevoked;
    const Fingerprint after = write();
    reloader_->apply({{Change::Kind::kUpsert, row_}}, before_, after, told());
    EXPECT_EQ(state(), apikey::shm::SlotState::kRevoked);
    for (const KeyState other : {KeyState::kActive, KeyState::kDisabled}) {
        row_.state = other;
        std::string said;
        reloader_->apply({{Change::Kind::kUpsert, row_}}, after, after, [&](const Result<void>& result) {
            said = result ? "done" : result.error().message;
        });
        EXPECT_EQ(said, row_.id + ": is revoked, and that is for ever");
        EXPECT_EQ(state(), apikey::shm::SlotState::kRevoked);
    }
}

// A file edited by hand and not loaded yet may have the same key in another form.
TEST_P(ReloaderTest, AChangeOfAnotherFormOfAKeyIsOfTheSameKey) {
    KeyRow other = row_;
    other.foreign = true;
    KeyRow renamed = other;
    renamed.id = numbered_row(77).id;
    const Fingerprint unknown{};
    const auto apply = [&](const KeyRow& row) {
        std::string said;
        reloader_->apply({{Change::Kind::kUpsert, row}}, unknown, unknown, [&](const Result<void>& result) {
            said = result ? "done" : result.error().message;
        });
        run_until([&] { return !said.empty(); });
        return said;
    };
    other.state = KeyState::kRevoked;
    EXPECT_EQ(apply(other), "done");
    const GenerationPtr before = publisher_->superseded().back();
    const auto old_table = before->table().view();
    const auto old = find_slot(old_table, row_hash(row_, old_table.hash_seed), row_digest(row_));
    EXPECT_NE(apikey::shm::Meta::state(old.meta), apikey::shm::SlotState::kActive)
        << "who still reads the older file must not accept it";
    EXPECT_FALSE(is_in(publisher_->current()->table().view(), row_));
    EXPECT_EQ(apikey::shm::Meta::state(found(other).meta), apikey::shm::SlotState::kRevoked);
    for (const KeyState state : {KeyState::kActive, KeyState::kDisabled}) {
        row_.state = state;
        EXPECT_EQ(apply(row_), row_.id + ": is revoked, and that is for ever");
    }
    EXPECT_EQ(apply(renamed), renamed.id + ": is revoked, and that is for ever");
}

TEST_P(ReloaderTest, ALoadThatFindsNoMemoryIsRefusedAndTheNextOneIsNot) {
    KeyRow row = numbered_row(2);
    row.environment = "live";
    row.name = std::string(kNameBytesMax, 'n');
    std::string text = "keys:\n" + block_key_row(row_, 2, "\n");
    for (uint64_t i = 2; i < 1000; ++i) {
        row.id = numbered_row(i).id;
        row.digest = numbered_row(i).digest;
        text += block_key_row(row, 2, "\n");
    }
    std::ofstream(directory_ / "keys.yaml") << text;
    g_no_memory = true;
    std::string said;
    reloader_->request(true, [&](const Result<ReloadReport>& report) {
        g_no_memory = false;
        said = report ? "done" : report.error().message;
    });
    run_until([&] { return !said.empty(); });
    EXPECT_NE(said.find("keys.yaml: no memory"), std::string::npos) << said;
    EXPECT_EQ(state(), apikey::shm::SlotState::kActive);
    reload();
    EXPECT_NE(found(row).index, apikey::shm::kNoSlot);
}

const LimitRow kDaily{"daily", LimitForm::kQuotaPerDay, 5, 0, 0, false};
const std::string kFree = "plans: [{name: free, limits: [{name: daily, quota: 5/day}]}]\n";
const PlanRow kFreePlan{"free", {kDaily}};

TEST_P(ReloaderTest, AChangedPlanNeedsNoLookAtTheSource) {
    policies_ = kFree;
    row_.terms = std::make_shared<const KeyTerms>(KeyTerms{.plan = "free"});
    before_ = write();
    reload();
    policies_ = "plans: [{name: free, limits: [{name: daily, quota: 7/day}]}]\n";
    const Fingerprint after = write();
    const std::string file = directory_ / "keys.yaml";
    std::filesystem::rename(file, file + ".away");
    PlanRow plan = kFreePlan;
    plan.limits[0].requests = 7;
    const uint64_t position = publisher_->control().control().applied_position;
    EXPECT_EQ(apply_policies({{Change::Kind::kUpsert, plan}}, before_, after), "done");
    EXPECT_EQ(publisher_->policies().plans, (std::vector<PlanRow>{plan}));
    EXPECT_EQ(policies_of(publisher_->current()->table().view()).plans, (std::vector<PlanRow>{plan}));
    EXPECT_EQ(reloader_->fingerprint(), after);
    EXPECT_EQ(publisher_->control().control().applied_position, position + 1);
    std::filesystem::rename(file + ".away", file);
    reloader_->request(false, [&](const Result<ReloadReport>& report) {
        EXPECT_TRUE(report && report->unchanged);
        ++loads_;
    });
    const int loads = loads_;
    run_until([&] { return loads_ > loads; });
}

TEST_P(ReloaderTest, AChangeOfPoliciesThatALoadWasFasterThanIsDone) {
    policies_ = kFree;
    const Fingerprint after = write();
    reload();
    const uint64_t position = publisher_->control().control().applied_position;
    EXPECT_EQ(apply_policies({{Change::Kind::kUpsert, kFreePlan}}, before_, after), "done");
    EXPECT_EQ(publisher_->control().control().applied_position, position) << "nothing was parsed";
    // One that comes while a load is on its way that may have read the file before it changed.
    reloader_->request(true, count());
    policies_ = "";
    const Fingerprint without = write();
    EXPECT_EQ(apply_policies({{Change::Kind::kRemove, PlanRow{"free", {}}}}, after, without), "done");
    EXPECT_TRUE(publisher_->policies().plans.empty());
    EXPECT_EQ(reloader_->fingerprint(), without);
}

TEST_P(ReloaderTest, PoliciesOfASourceThatWasChangedOtherwiseAreReadThere) {
    policies_ = kFree;
    row_.state = KeyState::kDisabled;
    const Fingerprint edited = write();  // by hand, and not loaded yet
    policies_ += "owners: [{name: acme, plan: free}]\n";
    const Fingerprint after = write();
    EXPECT_EQ(apply_policies({{Change::Kind::kUpsert, OwnerRow{"acme", "free"}}}, edited, after), "done");
    EXPECT_EQ(publisher_->policies(), (PolicySet{{}, {kFreePlan}, {{"acme", "free"}}}));
    EXPECT_EQ(state(), apikey::shm::SlotState::kDisabled);
    policies_ = "plans: [nonsense]\n";
    const Fingerprint bad = write();
    EXPECT_NE(apply_policies({{Change::Kind::kUpsert, kFreePlan}}, edited, bad).find("keys.yaml:1:"),
              std::string::npos);
    EXPECT_EQ(publisher_->policies().plans, (std::vector<PlanRow>{kFreePlan}));
}

TEST_P(ReloaderTest, AnOwnersFirstPlanIsSharedByAllItsKeysAtOnce) {
    policies_ = kFree;
    row_.owner = "acme";
    before_ = write();
    reload();
    EXPECT_EQ(owner_of(row_), 0u);
    const Fingerprint after = write(kFree + "owners: [{name: acme, plan: free}]\n", {row_});
    EXPECT_EQ(apply_policies({{Change::Kind::kUpsert, OwnerRow{"acme", "free"}}}, before_, after), "done");
    EXPECT_NE(owner_of(row_), 0u);
    EXPECT_EQ(apply_policies({{Change::Kind::kRemove, OwnerRow{"acme", ""}}}, after, before_), "done");
    EXPECT_EQ(owner_plan(publisher_->current()->table().view(), owner_of(row_)), 0u);
    reloader_->request(true, [&](const Result<ReloadReport>& report) {
        EXPECT_TRUE(report && report->updated == 0) << "nothing of the key is to be changed for that";
        ++loads_;
    });
    const int loads = loads_;
    run_until([&] { return loads_ > loads; });
}

TEST_P(ReloaderTest, WhatKeysOrOwnersHaveIsNotTakenAway) {
    policies_ = kFree + "owners: [{name: acme, plan: free}]\n";
    before_ = write();
    reload();
    const PolicySet in_force = publisher_->policies();
    const Fingerprint after = fingerprint("after");
    EXPECT_EQ(apply_policies({{Change::Kind::kRemove, PlanRow{"free", {}}}}, before_, after),
              "owner acme: plan: free is defined nowhere");
    EXPECT_EQ(apply_policies({{Change::Kind::kUpsert, OwnerRow{"other", "gold"}}}, before_, after),
              "owner other: plan: gold is defined nowhere");
    policies_ = kFree;
    row_.terms = std::make_shared<const KeyTerms>(KeyTerms{.plan = "free"});
    before_ = write();
    reload();
    EXPECT_EQ(apply_policies({{Change::Kind::kRemove, PlanRow{"free", {}}}}, before_, after),
              "plan free: key " + row_.id + " has it (give it another plan first)");
    EXPECT_EQ(publisher_->policies(), (PolicySet{{}, {kFreePlan}, {}}));
    EXPECT_EQ(reloader_->fingerprint(), before_);
}

// Keys that were added while another generation was built stand in that one alone.
TEST_P(ReloaderTest, AnOwnersFirstPlanReachesTheKeysOfAGenerationThatCameMeanwhile) {
    policies_ = kFree;
    row_.owner = "acme";
    before_ = write();
    reload();
    std::vector<KeyRow> rows = {row_};
    std::vector<Change> additions;
    for (uint64_t i = 2; i < 1000; ++i) {
        KeyRow row = numbered_row(i);
        row.environment = "live";
        row.owner = "acme";
        rows.push_back(row);
        additions.push_back({Change::Kind::kUpsert, row});
    }
    std::promise<void> release;
    ASSERT_TRUE(loader_->submit([go = release.get_future().share()] { go.wait(); }, [] {}));
    const Fingerprint after = write(kFree + "owners: [{name: acme, plan: free}]\n", rows);
    std::string said;
    reloader_->apply_policies(
        {{Change::Kind::kUpsert, OwnerRow{"acme", "free"}}}, before_, after,
        [&](const Result<void>& result) { said = result ? "done" : result.error().message; });
    const uint32_t generation = publisher_->current()->number();
    publisher_->apply(additions, told());
    run_until([&] { return told_ == 1; });
    ASSERT_NE(publisher_->current()->number(), generation);
    EXPECT_EQ(owner_of(rows.back()), 0u);
    release.set_value();
    run_until([&] { return !said.empty(); });
    EXPECT_EQ(said, "done");
    EXPECT_EQ(std::count_if(rows.begin(), rows.end(), [&](const KeyRow& row) { return owner_of(row) == 0; }),
              0);
    EXPECT_EQ(reloader_->fingerprint(), after);
}

TEST_P(ReloaderTest, AStopEndsALoadSoonAndTellsNobody) {
    bool told = false;
    reloader_->stop();
    reloader_->request(true, [&](const Result<ReloadReport>&) { told = true; });
    loader_->stop();
    run_for(std::chrono::milliseconds(20));
    EXPECT_FALSE(told);
    EXPECT_EQ(state(), apikey::shm::SlotState::kActive) << "and takes no key away";
}

}  // namespace
}  // namespace apikeyd
