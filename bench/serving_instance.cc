#include "bench/serving_instance.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "bench/generated_keys.h"
#include "core/bus_guard.h"
#include "core/table_rows.h"
#include "shm/index_hash.h"
#include "shm/sha256.h"

namespace apikey::bench {
namespace {

using apikeyd::Change;
using apikeyd::KeyRow;
using std::chrono::milliseconds;

constexpr uint64_t kKeysPerOwner = 100;
constexpr char kEnvironment[] = "live";
constexpr uint64_t kCheckKeys = 4096;  // made between two looks at the crew and at signals
constexpr uint32_t kFirstGeneration = 1;

constexpr milliseconds kBeatInterval{500};
constexpr milliseconds kWatchInterval{20};

void fill(shm::TableWriter& table, uint64_t keys, Crew& crew) {
    const uint64_t seed = table.view().hash_seed;
    std::vector<uint64_t> hashes(keys);
    for (uint64_t i = 0; i < keys; ++i) {
        const GeneratedKey key = known_key(i);
        hashes[i] = shm::index_hash_id(shm::native_key_id(key.data(), key.size()), seed);
        if (i % kCheckKeys == 0) {
            crew.check();
        }
    }
    table.spread(hashes);
    const std::optional<uint32_t> environment = table.environment(kEnvironment);
    for (uint64_t i = 0; i < keys; ++i) {
        const KeyRow row = row_of_key(i);
        const uint32_t reference = table.append_detail(row_detail(row));
        if (!environment || reference == 0 ||
            table.publish(hashes[i], row_digest(row), row_meta(row, 0, *environment), reference, false) !=
                shm::TableWriter::Publish::kDone) {
            throw RunEnded(kUnreachable, "the table has no room for key " + std::to_string(i));
        }
        if (i % kCheckKeys == 0) {
            crew.check();
        }
    }
}

uint64_t details_bytes(uint64_t keys) {
    const KeyRow row = row_of_key(keys);  // the longest
    const uint64_t owner_bytes = shm::TableWriter::owner_bytes(row.owner);
    return keys * (shm::TableWriter::detail_bytes(row_detail(row)) - owner_bytes) +
           (keys / kKeysPerOwner + 1) * owner_bytes;
}

/// Leaves what a daemon leaves that was stopped: a control, and the first generation with all keys.
void make_files(const shm::Directory& directory, uint64_t keys, uint64_t shards_budget_bytes, Crew& crew) {
    auto control = value_or_end(shm::ControlWriter::open(directory.fd(), getegid()));
    shm::GenerationPlan plan{};
    plan.generation = kFirstGeneration;
    plan.geometry = shm::TableGeometry::for_keys(keys, details_bytes(keys), {});
    plan.cpus = std::max(1u, std::thread::hardware_concurrency());
    plan.shards_budget_bytes = shards_budget_bytes;
    plan.clients_group = getegid();
    auto generation = value_or_end(shm::Generation::create(directory.fd(), plan));
    fill(generation->table(), keys, crew);
    generation->use_huge_pages();
    value_or_end(generation->name_files());
    control.announce(plan.generation);
    control.publish();
}

}  // namespace

KeyRow row_of_key(uint64_t number) {
    const GeneratedKey key = known_key(number);
    KeyRow row;
    row.id.assign(shm::native_key_id(key.data(), key.size()), shm::kIdLength);
    shm::sha256_kernel().hash(key.data(), key.size(), row.digest.data());
    row.environment = kEnvironment;
    row.owner = "account-" + std::to_string(number / kKeysPerOwner);
    row.name = "CI";
    row.created_s = 1'700'000'000;
    return row;
}

ServingInstance::ServingInstance(std::string base, uint64_t keys, uint64_t shards_budget_bytes, Crew& crew)
    : base_(std::move(base)), crew_(crew), next_key_(keys) {
    auto directory = value_or_end(shm::Directory::open_and_lock(base_, Crew::kInstance, getegid()));
    make_files(directory, keys, shards_budget_bytes, crew);
    apikeyd::install_bus_guard();
    log_ = value_or_end(apikeyd::Log::open({.path = base_ + "/log"}));
    loop_ = value_or_end(apikeyd::make_loop(apikeyd::LoopKind::automatic));
    builder_ = value_or_end(apikeyd::Worker::start(*loop_));
    flush_worker_ = value_or_end(apikeyd::Worker::start(*loop_));
    publisher_ = value_or_end(
        apikeyd::Publisher::open(std::move(directory), getegid(), /*capacity_keys=*/0, *builder_, *log_));
    if (publisher_->current() == nullptr) {
        throw RunEnded(kUnreachable, "the publisher does not adopt the table; see its log");
    }
    flusher_ = std::make_unique<apikeyd::Flusher>(
        *publisher_, *flush_worker_, value_or_end(apikeyd::UsageStore::open(base_ + "/usage.db")), *log_);
    publisher_->control().beat(apikeyd::realtime_now_ns());
    publisher_->control().set_state(shm::ControlState::kServing);
    start_timers();
}

/// Before what their jobs refer to.
ServingInstance::~ServingInstance() {
    for (apikeyd::Worker* worker : {builder_.get(), flush_worker_.get()}) {
        if (worker != nullptr) {
            worker->stop();
        }
    }
}

void ServingInstance::start_timers() {
    loop_->every(kBeatInterval, [this] { publisher_->control().beat(apikeyd::realtime_now_ns()); });
    loop_->every(kWatchInterval, [this] {
        try {
            crew_.check();
        } catch (const RunEnded&) {
            problem_ = std::current_exception();
            loop_->stop();
        }
    });
}

void ServingInstance::run() {
    value_or_end(loop_->run());
    if (problem_) {
        std::rethrow_exception(problem_);
    }
}

void ServingInstance::run_for(double seconds) {
    loop_->after(milliseconds(static_cast<int64_t>(seconds * 1e3)), [this] { loop_->stop(); });
    run();
}

void ServingInstance::run_until(const std::function<bool()>& condition) {
    const apikeyd::TimerId look = loop_->every(milliseconds(1), [&] {
        if (condition()) {
            loop_->stop();
        }
    });
    try {
        run();
    } catch (const RunEnded&) {
        loop_->cancel(look);
        throw;
    }
    loop_->cancel(look);
}

ServingInstance::BuildTime ServingInstance::publish_next(uint64_t keys) {
    std::vector<Change> changes;
    for (uint64_t i = 0; i < keys; ++i) {
        changes.push_back({Change::Kind::kUpsert, row_of_key(next_key_++)});
    }
    apikeyd::Result<void> told = apikeyd::fail("nothing was told of the build");
    uint64_t told_ns = 0;
    double cpu_before_s = 0;
    double cpu_after_s = 0;
    // The builder does its jobs in order.
    bool queued = builder_->submit([&] { cpu_before_s = thread_cpu_s(); }, [] {});
    const uint64_t asked_ns = monotonic_ns();
    publisher_->make_room_for(apikeyd::ChangeSet(changes), [&](const apikeyd::Result<void>& result) {
        told_ns = monotonic_ns();
        told = result;
    });
    queued &= builder_->submit([&] { cpu_after_s = thread_cpu_s(); }, [this] { loop_->stop(); });
    if (!queued) {
        throw RunEnded(kUnreachable, "the builder is busy");
    }
    run();
    value_or_end(told);
    return {static_cast<double>(told_ns - asked_ns) * 1e-9, cpu_after_s - cpu_before_s};
}

void ServingInstance::limit_key(uint64_t number) {
    apikeyd::LimitRow rate;
    rate.name = "rate";
    rate.requests = 100'000'000;
    rate.rate_seconds = 1;
    rate.burst = 1'000'000'000;
    publisher_->set_policies(std::make_shared<const apikeyd::PolicySet>(
        apikeyd::PolicySet{.plans = {{"plan", {rate}}}, .owners = {}}));
    KeyRow row = row_of_key(number);
    row.terms = std::make_shared<const apikeyd::KeyTerms>(apikeyd::KeyTerms{.plan = "plan"});
    std::optional<apikeyd::Result<void>> told;
    publisher_->apply({{Change::Kind::kUpsert, row}},
                      [&](const apikeyd::Result<void>& result) { told = result; });
    run_until([&] { return told.has_value(); });
    value_or_end(*told);
}

void ServingInstance::drop_superseded() {
    run_until([this] {
        const std::vector<apikeyd::GenerationPtr> superseded = publisher_->superseded();
        for (const apikeyd::GenerationPtr& generation : superseded) {
            if (generation->lock_unused()) {
                generation->unlink_files();
                publisher_->drop_superseded(generation);
            }
        }
        return publisher_->superseded().empty();
    });
}

double thread_cpu_s() {
    timespec used{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

}  // namespace apikey::bench
