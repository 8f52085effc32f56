// What a server could ask for a key instead of libapikey, with the same keys, presented in the same order.
//
//   std_key/<keys>/<draw>/single      std::unordered_map<std::string, Row>, private to the process
//   lmdb_key/…  sqlite_key/…          embedded stores whose files stand in memory
//   sqlite_live_key/…                 the same SQLite, opened so that it sees changes
//   redis_key/…  memcached_key/…      servers on a Unix socket of this host, by wall-clock time; also
//                                     /pipeline16, all requests sent before the first answer is read
//   std_digest/…  lmdb_digest/…  …    the same, found by the SHA-256 of the key, computed for each call
//
// boost::unordered_flat_map is in micro_validate.cc. Nothing here counts what it answers. Draws: hits uniform
// and misses. Every answer is compared with the right one, and after loading a sample of the rows is read
// back.

#include "bench/micro_peers.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <type_traits>
#include <unordered_map>

#include "bench/micro_loops.h"
#include "bench/peer_servers.h"
#include "bench/peer_stores.h"
#include "shm/sha256.h"

namespace apikey::bench {
namespace {

constexpr size_t kGroup = 8;  // lookups timed together for percentiles, as libapikey's
constexpr uint64_t kSampleRows = 1000;
constexpr Draw kPeerDraws[] = {Draw::kHitUniform, Draw::kMiss};

class StdMap {
  public:
    StdMap(uint64_t keys, FoundBy by) {
        map_.reserve(keys);
        for (uint64_t i = 0; i < keys; ++i) {
            map_.emplace(lookup_text(i, by), row_of(i));
        }
    }
    bool find(std::string_view text, Row* row) {
        const auto found = map_.find(text);
        if (found == map_.end()) {
            return false;
        }
        *row = found->second;
        return true;
    }

  private:
    std::unordered_map<std::string, Row, TextHash, std::equal_to<>> map_;
};

/// A server asked as a store is, one key at a time.
template <typename Client>
struct ServerStore {
    Client client;

    bool find(std::string_view text, Row* row) {
        Answer answer;
        client.find(&text, 1, &answer);
        *row = answer.row;
        return answer.found;
    }
};
using Redis = ServerStore<RedisClient>;
using Memcached = ServerStore<MemcachedClient>;

/// As many lookups as take a few milliseconds.
template <typename Store>
constexpr size_t kWarmUp = kWarmUpKeys;
template <>
constexpr size_t kWarmUp<SqliteStore> = 1 << 12;
template <>
constexpr size_t kWarmUp<Redis> = 1 << 8;
template <>
constexpr size_t kWarmUp<Memcached> = 1 << 8;

/// A store that is loaded at its first use, so that a filtered run does not pay for what it leaves out, and
/// kept.
template <typename Store>
class Lazy {
  public:
    using Make = std::function<std::unique_ptr<Store>()>;
    Lazy(uint64_t keys, FoundBy by, Make make) : keys_(keys), by_(by), make_(std::move(make)) {}

    Store& get() {
        if (store_ == nullptr) {
            store_ = make_();
            read_sample();
        }
        return *store_;
    }

  private:
    /// Verdicts alone would not tell one row from another.
    void read_sample() {
        for (uint64_t i = 0; i < keys_; i += std::max<uint64_t>(1, keys_ / kSampleRows)) {
            Row row{};
            if (!store_->find(lookup_text(i, by_), &row) || row.owner != row_of(i).owner || row.state != 0 ||
                row.expires_at != 0) {
                std::fprintf(stderr, "micro: a peer gives a wrong row for key %llu\n",
                             static_cast<unsigned long long>(i));
                std::exit(1);
            }
        }
    }

    uint64_t keys_;
    FoundBy by_;
    Make make_;
    std::unique_ptr<Store> store_;
};

apikey_code code_of(bool found, const Row& row) {
    if (!found) {
        return APIKEY_NOT_FOUND;
    }
    return row.state == 0 ? APIKEY_VALID : APIKEY_DISABLED;
}

/// What a presented key is looked up by; `digest` is room for it.
template <FoundBy kBy>
std::string_view text_of(const shm::Sha256Kernel& kernel, const apikey_key& key, uint8_t* digest) {
    if constexpr (kBy == FoundBy::kKey) {
        return {key.data, key.len};
    }
    kernel.hash(key.data, key.len, digest);
    return {reinterpret_cast<const char*>(digest), shm::kDigestLength};
}

/// From a presented key to its code.
template <FoundBy kBy, typename Store>
auto asking(Store& store) {
    return [&store, &kernel = shm::sha256_kernel()](const apikey_key& key) {
        uint8_t digest[shm::kDigestLength];
        Row row;
        const bool found = store.find(text_of<kBy>(kernel, key, digest), &row);
        return code_of(found, row);
    };
}

template <FoundBy kBy, typename Store>
void find_single(benchmark::State& state, PrivateSet* set, Draw draw, Lazy<Store>* lazy) {
    one_by_one<false>(state, set->stream(draw), asking<kBy>(lazy->get()), kWarmUp<Store>);
}

template <FoundBy kBy, typename Store>
void find_percentiles(benchmark::State& state, PrivateSet* set, Draw draw, Lazy<Store>* lazy) {
    percentiles<kGroup>(state, set->stream(draw), asking<kBy>(lazy->get()), kWarmUp<Store>);
}

/// A round trip is a thousand times the clock's step: each is timed alone.
template <FoundBy kBy, typename Store>
void round_trip_percentiles(benchmark::State& state, PrivateSet* set, Draw draw, Lazy<Store>* lazy) {
    percentiles<1>(state, set->stream(draw), asking<kBy>(lazy->get()), kWarmUp<Store>);
}

template <FoundBy kBy, typename Store>
void find_pipelined(benchmark::State& state, PrivateSet* set, Draw draw, Lazy<Store>* lazy) {
    Store& store = lazy->get();
    const shm::Sha256Kernel& kernel = shm::sha256_kernel();
    uint8_t digests[kPipeline][shm::kDigestLength];
    std::string_view texts[kPipeline];
    Answer answers[kPipeline];
    in_batches(
        state, set->stream(draw), kPipeline,
        [&](const apikey_key* keys) {
            for (size_t i = 0; i < kPipeline; ++i) {
                texts[i] = text_of<kBy>(kernel, keys[i], digests[i]);
            }
            store.client.find(texts, kPipeline, answers);
        },
        [&](size_t i) { return code_of(answers[i].found, answers[i].row); }, kWarmUp<Store>);
}

template <FoundBy kBy, typename Store>
void add_peer(const char* peer, PrivateSet* set, const typename Lazy<Store>::Make& make) {
    auto* lazy = new Lazy<Store>(set->keys(), kBy, make);  // lives as long as the benchmarks: to the end
    for (const Draw draw : kPeerDraws) {
        std::string name(peer);
        name.append(kBy == FoundBy::kKey ? "_key/" : "_digest/").append(std::to_string(set->keys()));
        name.append("/").append(draw_name(draw)).append("/");
        const auto add = [&](const char* way, auto function) {
            return benchmark::RegisterBenchmark((name + way).c_str(), function, set, draw, lazy);
        };
        if constexpr (std::is_same_v<Store, Redis> || std::is_same_v<Store, Memcached>) {
            // Most of the time passes in the server and the kernel: this process's CPU time would flatter
            // them.
            add("single", find_single<kBy, Store>)->UseRealTime();
            add("pipeline16", find_pipelined<kBy, Store>)->UseRealTime();
            add("percentiles", round_trip_percentiles<kBy, Store>)->UseRealTime();
        } else {
            add("single", find_single<kBy, Store>);
            add("percentiles", find_percentiles<kBy, Store>);
        }
    }
}

template <FoundBy kBy>
void add_peers(PrivateSet* set, unsigned database, const PeerSockets& sockets) {
    const uint64_t keys = set->keys();
    add_peer<kBy, StdMap>("std", set, [keys] { return std::make_unique<StdMap>(keys, kBy); });
#if APIKEYD_BENCH_LMDB
    add_peer<kBy, LmdbStore>("lmdb", set, [keys] { return std::make_unique<LmdbStore>(keys, kBy); });
#endif
    add_peer<kBy, SqliteStore>("sqlite", set, [keys] {
        return std::make_unique<SqliteStore>(keys, kBy, SqliteStore::Sees::kNothing);
    });
    add_peer<kBy, SqliteStore>("sqlite_live", set, [keys] {
        return std::make_unique<SqliteStore>(keys, kBy, SqliteStore::Sees::kChanges);
    });
    if (!sockets.redis.empty()) {
        add_peer<kBy, Redis>("redis", set, [keys, database, path = sockets.redis] {
            auto server = std::unique_ptr<Redis>(new Redis{RedisClient(path, database)});
            server->client.load(keys, kBy);
            return server;
        });
    }
    if (!sockets.memcached.empty()) {
        add_peer<kBy, Memcached>("memcached", set, [keys, path = sockets.memcached] {
            auto server = std::unique_ptr<Memcached>(new Memcached{MemcachedClient(path, kBy)});
            server->client.load(keys, kBy);
            return server;
        });
    }
}

}  // namespace

void register_peers(const std::vector<PrivateSet*>& sets, const PeerSockets& sockets) {
    unsigned database = 0;
    for (PrivateSet* set : sets) {
        if (set->keys() <= kPeerKeysMax) {
            add_peers<FoundBy::kKey>(set, database++, sockets);
            add_peers<FoundBy::kDigest>(set, database++, sockets);
        }
    }
}

}  // namespace apikey::bench
