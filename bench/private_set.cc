#include "bench/private_set.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <thread>

#include "bench/generated_keys.h"
#include "bench/temporary_directory.h"
#include "shm/control_writer.h"
#include "shm/directory.h"
#include "shm/generation.h"
#include "shm/index_hash.h"
#include "shm/meters.h"
#include "shm/sha256.h"

namespace apikey::bench {
namespace {

constexpr double kZipfTheta = 0.99;
constexpr unsigned kMixedMisses_percent = 5;
constexpr uint64_t kShardsBudgetBytes = uint64_t{16} << 20;  // as the daemon's
constexpr char kInstance[] = "private";

[[noreturn]] void give_up(const std::string& reason) {
    std::fprintf(stderr, "micro: %s\n", reason.c_str());
    std::exit(1);
}

/// Requests that a limit passes before it first refuses, and a second: more than a core can make.
constexpr uint32_t kBurst = 1'000'000'000;
constexpr uint64_t kRate = 100'000'000;
constexpr uint64_t kQuota = uint64_t{1} << 33;
constexpr char kPlan[] = "plan";
constexpr char kOwner[] = "account";

shm::Limit make_limit(const char* name, shm::LimitKind kind) {
    shm::Limit limit{};
    limit.kind = kind;
    std::strncpy(limit.name, name, sizeof limit.name - 1);
    limit.allowance = kQuota;
    if (kind == shm::LimitKind::kRate) {
        limit.burst = kBurst;
        limit.interval = shm::rate_interval(kRate, 1);
        limit.allowance = kBurst * limit.interval;
    }
    return limit;
}

/// The policy of all keys; nullopt: no room.
std::optional<uint32_t> make_policy(shm::PolicyWriter& policies, Limits limits) {
    std::vector<shm::Limit> of_plan = {make_limit("rate", shm::LimitKind::kRate)};
    if (limits == Limits::kRateAndQuota) {
        of_plan.push_back(make_limit("quota", shm::LimitKind::kMonth));
    }
    if (limits == Limits::kNone || !policies.set_plan(kPlan, of_plan)) {
        return limits == Limits::kNone ? std::optional(0u) : std::nullopt;
    }
    if (limits == Limits::kOwnersRate) {
        return policies.set_owner(kOwner, kPlan) ? policies.policy({.owner = kOwner}) : std::nullopt;
    }
    return policies.policy({.plan = kPlan});
}

shm::Result<void> fill(shm::TableWriter& table, uint64_t keys, uint32_t environment, uint32_t policy) {
    std::vector<uint64_t> hashes(keys);
    for (uint64_t i = 0; i < keys; ++i) {
        const GeneratedKey key = known_key(i);
        hashes[i] = shm::index_hash_id(shm::native_key_id(key.data(), key.size()), table.view().hash_seed);
    }
    table.spread(hashes);
    const uint64_t meta = shm::Meta::make(shm::SlotState::kActive, shm::Meta::kNever, policy, environment);
    for (uint64_t i = 0; i < keys; ++i) {
        const GeneratedKey key = known_key(i);
        const char* id = shm::native_key_id(key.data(), key.size());
        uint8_t digest[shm::kDigestLength];
        shm::sha256_kernel().hash(key.data(), key.size(), digest);
        shm::DetailText detail;
        detail.id = {id, shm::kIdLength};
        const uint32_t reference = table.append_detail(detail);
        if (reference == 0 || table.publish(hashes[i], shm::DigestKey::from(digest), meta, reference,
                                            false) != shm::TableWriter::Publish::kDone) {
            return shm::fail("the table has no room for key " + std::to_string(i));
        }
    }
    return {};
}

/// Builds, publishes and attaches. The directory is the caller's to remove.
shm::Result<apikey_client*> attach_new_table(const std::string& directory_path, uint64_t keys, Pages pages,
                                             Limits limits, TableBytes* bytes) {
    auto directory = shm::Directory::open_and_lock(directory_path, kInstance, getegid());
    if (!directory) {
        return tl::unexpected(directory.error());
    }
    auto control = shm::ControlWriter::open(directory->fd(), getegid());
    if (!control) {
        return tl::unexpected(control.error());
    }
    shm::GenerationPlan plan{};
    plan.generation = 1;
    const GeneratedKey any = known_key(0);
    shm::DetailText detail;
    detail.id = {shm::native_key_id(any.data(), any.size()), shm::kIdLength};
    plan.geometry = shm::TableGeometry::for_keys(keys, keys * shm::TableWriter::detail_bytes(detail) + 4096,
                                                 {.policies = 1, .plans = 1, .owners = 1});
    plan.meter_words = limits == Limits::kNone ? 0 : 2;
    plan.cpus = std::max(1u, std::thread::hardware_concurrency());
    plan.shards_budget_bytes = kShardsBudgetBytes;
    plan.clients_group = getegid();
    auto generation = shm::Generation::create(directory->fd(), plan);
    if (!generation) {
        return tl::unexpected(generation.error());
    }
    shm::TableWriter& table = (*generation)->table();
    const auto policy = make_policy(table.policies(), limits);
    if (!policy) {
        return shm::fail("the table has no room for a policy");
    }
    if (auto filled = fill(table, keys, table.environment("live").value(), *policy); !filled) {
        return tl::unexpected(filled.error());
    }
    if (pages == Pages::kHuge) {
        (*generation)->use_huge_pages();
        *bytes = {(*generation)->file_bytes(), (*generation)->huge_bytes()};
    }
    if (auto named = (*generation)->name_files(); !named) {
        return tl::unexpected(named.error());
    }
    control->beat(static_cast<uint64_t>(std::time(nullptr)) * 1000000000);
    control->announce(plan.generation);
    control->publish();
    control->set_state(shm::ControlState::kServing);

    apikey_options options{};
    options.size = sizeof options;
    options.directory = directory_path.c_str();
    options.instance = kInstance;
    apikey_client* client = nullptr;
    const apikey_result opened = apikey_open(&options, &client);
    if (opened != APIKEY_OK) {
        apikey_close(client);
        return shm::fail(std::string("cannot attach: ") + apikey_result_text(opened));
    }
    return client;
}

apikey_client* make_client(uint64_t keys, Pages pages, Limits limits, TableBytes* bytes) {
    std::string problem;
    {
        const TemporaryDirectory directory;
        auto attached = attach_new_table(directory.path(), keys, pages, limits, bytes);
        if (attached) {
            return *attached;
        }
        problem = attached.error().message;
    }
    give_up(problem);
}

/// Keys go in in another order than they are asked for; their heap blocks lie in the order of insertion.
std::unique_ptr<Map> make_map(uint64_t keys, FoundBy by) {
    auto map = std::make_unique<Map>();
    map->reserve(keys);
    for (uint64_t i = 0; i < keys; ++i) {
        map->emplace(lookup_text(i, by), row_of(i));
    }
    return map;
}

/// Small sets get short streams, so that what is presented fits beside the table into the same cache; large
/// ones long streams, so that the table does not stay in the cache from one round to the next.
size_t stream_size(uint64_t keys) {
    return keys <= 4096 ? size_t{1} << 12 : keys <= 200000 ? size_t{1} << 18 : size_t{1} << 20;
}

std::unique_ptr<KeyStream> make_stream(uint64_t keys, Draw draw) {
    std::mt19937_64 random(keys + static_cast<uint64_t>(draw));
    const KeyPicker picker(keys, draw == Draw::kHitZipf ? kZipfTheta : 0);
    const size_t size = stream_size(keys);
    auto stream = std::make_unique<KeyStream>();
    stream->reserve(size, size * sizeof(GeneratedKey));
    for (size_t i = 0; i < size; ++i) {
        const bool miss =
            draw == Draw::kMiss || (draw == Draw::kMixed && random() % 100 < kMixedMisses_percent);
        const uint64_t number = picker.pick(random);
        stream->add(text(miss ? unknown_key(number) : known_key(number)),
                    static_cast<Expected>(miss ? APIKEY_NOT_FOUND : APIKEY_VALID));
    }
    stream->seal();
    return stream;
}

}  // namespace

const char* draw_name(Draw draw) {
    switch (draw) {
        case Draw::kHitUniform:
            return "hit_uniform";
        case Draw::kHitZipf:
            return "hit_zipf";
        case Draw::kMiss:
            return "miss";
        default:
            return "mixed_95_5";
    }
}

const char* limits_name(Limits limits) {
    switch (limits) {
        case Limits::kRate:
            return "rate";
        case Limits::kOwnersRate:
            return "owners_rate";
        case Limits::kRateAndQuota:
            return "rate_and_quota";
        default:
            return "none";
    }
}

std::string lookup_text(uint64_t number, FoundBy by) {
    const GeneratedKey key = known_key(number);
    if (by == FoundBy::kKey) {
        return std::string(text(key));
    }
    uint8_t digest[shm::kDigestLength];
    shm::sha256_kernel().hash(key.data(), key.size(), digest);
    return {reinterpret_cast<const char*>(digest), sizeof digest};
}

apikey_client* PrivateSet::client(Pages pages) {
    apikey_client*& client = clients_[static_cast<size_t>(pages)];
    if (client == nullptr) {
        client = make_client(keys_, pages, Limits::kNone, &table_bytes_);
    }
    return client;
}

apikey_client* PrivateSet::limited_client(Limits limits) {
    apikey_client*& client = limited_[static_cast<size_t>(limits)];
    if (client == nullptr) {
        TableBytes bytes{};
        client = make_client(keys_, Pages::kHuge, limits, &bytes);
    }
    return client;
}

const Map& PrivateSet::by_key() {
    if (by_key_ == nullptr) {
        by_key_ = make_map(keys_, FoundBy::kKey);
    }
    return *by_key_;
}

const Map& PrivateSet::by_digest() {
    if (by_digest_ == nullptr) {
        by_digest_ = make_map(keys_, FoundBy::kDigest);
    }
    return *by_digest_;
}

const KeyStream& PrivateSet::stream(Draw draw) {
    std::unique_ptr<KeyStream>& stream = streams_[static_cast<size_t>(draw)];
    if (stream == nullptr) {
        stream = make_stream(keys_, draw);
    }
    return *stream;
}

}  // namespace apikey::bench
