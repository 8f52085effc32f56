// Arrangements of a table's slots beside each other: the figures of 'Why slots stand like this',
// shm/LAYOUT.md.
//
// Each arrangement holds the same keys and is asked for the same ones, by the whole path of a verdict as
// client/validate.cc goes it: XXH3 of the id, prefetch of slot and cell, SHA-256, search, counters, dirty
// byte. Only where a slot is looked for differs. All arrangements are in memory at once, and each round
// measures all of them in another order. Every answer is checked; a wrong one ends the program with status 1.
//
// Keys are added in an order that has nothing to do with their hashes, as a daemon adds them: one away from
// home may take the room of another, which then is away, too. 'At home' is the share after all were added.
//
// Unknown keys have the native form and are in no table. No arrangement computes their checksum, which
// libapikey does to tell a typo, and none writes a log of denials.
//
// Not part of the build. From the tree's root, after a release build:
//   g++ -std=c++20 -O3 -march=x86-64 -DNDEBUG -I. bench/layouts.cc build/release/shm/libshm_reader.a -lfmt
// and -o with a name. It needs the headers of CLI11, fmt and xxHash.

#include <emmintrin.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shm/index_hash.h"
#include "shm/layout.h"
#include "shm/sha256.h"
#include "shm/table_reader.h"

namespace {

using namespace apikey::shm;

constexpr size_t kKeyBytes = 54;
constexpr size_t kBatch = 16;
constexpr size_t kStreamKeys = 1 << 20;
constexpr size_t kChunk = 4096;  // presented between two looks at the clock
constexpr uint64_t kHashSeed = 0x5bd1e9955bd1e995;
constexpr uint64_t kSeedStep = 0x9e3779b97f4a7c16;  // as line_in_group() has it
constexpr uint64_t kMultiplier = 0xd6e8feb86659fd93;
constexpr std::array<const char*, 4> kMeasures = {"hit", "hit, batch of 16", "unknown",
                                                  "unknown, batch of 16"};

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "layouts: %s\n", what);
    std::exit(1);
}

// ---- keys

uint64_t scatter(uint64_t number) {  // the output function of SplitMix64
    number += 0x9e3779b97f4a7c15;
    number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9;
    number = (number ^ number >> 27) * 0x94d049bb133111eb;
    return number ^ number >> 31;
}

/// A family's key of this number: ak_live_<12 base62>_<33 base62>, without a checksum.
void write_key(uint64_t family, uint64_t number, char* out) {
    constexpr std::string_view kPrefix = "ak_live_";
    constexpr const char* kBase62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    out = std::copy(kPrefix.begin(), kPrefix.end(), out);
    uint64_t random = 0;
    for (unsigned i = 0; i < 45; ++i) {
        if (i % 9 == 0) {
            random = scatter((family << 40) + number * 5 + i / 9);
        }
        if (i == kIdLength) {
            *out++ = '_';
        }
        const Uint128 product = static_cast<Uint128>(random) * 62;
        *out++ = kBase62[static_cast<unsigned>(product >> 64)];
        random = static_cast<uint64_t>(product);
    }
}

/// What a table is built from.
struct KeySet {
    struct Key {
        uint64_t hash;
        DigestKey digest;
    };
    std::vector<Key> keys;
    std::vector<uint64_t> sorted_hashes;

    explicit KeySet(uint64_t count) : keys(count), sorted_hashes(count) {
        for (uint64_t i = 0; i < count; ++i) {
            char text[kKeyBytes];
            uint8_t digest[kDigestLength];
            write_key(1, i, text);
            sha256_kernel().hash(text, kKeyBytes, digest);
            keys[i] = {index_hash_id(native_key_id(text, kKeyBytes), kHashSeed), DigestKey::from(digest)};
            sorted_hashes[i] = keys[i].hash;
        }
        std::sort(sorted_hashes.begin(), sorted_hashes.end());
    }
};

/// Keys one behind the other as they are presented, and what the right answer to each is.
struct Stream {
    std::vector<char> texts = std::vector<char>(kStreamKeys * kKeyBytes);
    std::vector<uint32_t> expected = std::vector<uint32_t>(kStreamKeys);  ///< number + 1, 0: unknown

    Stream(uint64_t key_count, bool known) {
        std::mt19937_64 random(known ? 11 : 12);
        for (size_t i = 0; i < kStreamKeys; ++i) {
            const uint64_t number = group_of(random(), key_count);
            write_key(known ? 1 : 2, number, texts.data() + i * kKeyBytes);
            expected[i] = known ? static_cast<uint32_t>(number + 1) : 0;
        }
    }
};

// ---- memory

/// Zeroed and populated, on small or on huge pages.
class Memory {
  public:
    Memory(size_t bytes, bool huge) : bytes_((bytes + kHuge - 1) / kHuge * kHuge) {
        reserved_ = mmap(nullptr, bytes_ + kHuge, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (reserved_ == MAP_FAILED) {
            fail("no memory");
        }
        const size_t address = reinterpret_cast<size_t>(reserved_);
        base_ = static_cast<uint8_t*>(reserved_) + (kHuge - address % kHuge) % kHuge;
        if (madvise(base_, bytes_, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0) {
            fail("the kernel does not take advice on page sizes");
        }
        for (size_t i = 0; i < bytes; i += 4096) {
            reinterpret_cast<volatile uint8_t*>(base_)[i] = 0;
        }
    }
    ~Memory() { munmap(reserved_, bytes_ + kHuge); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    uint8_t* at(size_t offset) const { return base_ + offset; }

  private:
    static constexpr size_t kHuge = size_t{2} << 20;
    size_t bytes_;
    void* reserved_;
    uint8_t* base_;
};

/// MiB of this process on huge pages.
double huge_mib() {
    double kib = 0;
    char line[256];
    std::FILE* file = std::fopen("/proc/self/smaps_rollup", "r");
    while (file != nullptr && std::fgets(line, sizeof line, file) != nullptr) {
        std::sscanf(line, "AnonHugePages: %lf kB", &kib);
    }
    if (file != nullptr) {
        std::fclose(file);
    }
    return kib / 1024;
}

// ---- arrangements
//
// Each has: size(), how many slots and auxiliary bytes it takes; choose(), which fills the auxiliary bytes;
// home(), the place where a key is looked for first; look(), what stands there; next(), where to look then;
// place(), which puts a key there; prefetch_auxiliary() and prefetch(). first() is the slot whose cell is
// prefetched, where is_aimed() says that it is known. Where kNextIsKnown is false, prefetch_next() fetches
// what next() needs.

struct Answer {
    uint64_t index = kNoSlot;
    uint64_t meta = 0;
    uint32_t number = 0;  ///< as a stream expects it
};

[[gnu::always_inline]] inline InLine look_at_slot(const Slot& slot, uint64_t index, const DigestKey& key,
                                                  Answer* answer) {
    const uint64_t meta = slot.meta.load(std::memory_order_acquire);
    if (Meta::state(meta) == SlotState::kEmpty) {
        return InLine::kEnd;
    }
    if (same_digest(slot, key)) {
        *answer = {index, meta, slot.detail.load(std::memory_order_relaxed)};
        return InLine::kFound;
    }
    return InLine::kNext;
}

/// Takes an empty slot for the key; its number stands where details are referred to.
bool fill_slot(Slot& slot, const DigestKey& key, uint32_t number) {
    if (slot.meta.load(std::memory_order_relaxed) != 0) {
        return false;
    }
    slot.digest[0] = key.digest[0];
    slot.digest[1] = key.digest[1];
    slot.tag = key.tag;
    slot.detail.store(number, std::memory_order_relaxed);
    slot.meta.store(Meta::make(SlotState::kActive, Meta::kNever, 0, 1), std::memory_order_release);
    return true;
}

struct alignas(64) PairLine {
    Slot slot[2];
};
struct alignas(64) SingleLine {
    Slot slot[1];
};

enum class Then : uint8_t { kNextLine, kNeighbour };

/// Lines of one or two slots, probed one after the other. kGroup > 0: so many lines share a seed byte.
template <typename Line, uint64_t kGroup, Then kThen = Then::kNextLine>
struct InLines {
    static constexpr uint64_t kSlots = std::size(Line{}.slot);
    static constexpr size_t kStride = sizeof(Line) / kSlots;
    static constexpr bool kNextIsKnown = true;
    struct At {
        uint64_t line;
        uint64_t half;
        uint64_t steps;
    };

    Line* lines = nullptr;
    uint8_t* seeds = nullptr;
    uint64_t line_count = 0;
    uint64_t group_count = 0;

    void size(uint64_t keys, double load, uint64_t* slots, uint64_t* auxiliary) {
        const uint64_t unit = std::max<uint64_t>(kGroup, 2);
        const double units = static_cast<double>(keys) / load / static_cast<double>(unit * kSlots);
        line_count = static_cast<uint64_t>(std::ceil(units)) * unit;
        group_count = kGroup != 0 ? line_count / kGroup : 0;
        *slots = line_count * kSlots;
        *auxiliary = group_count;
    }
    void choose(const std::vector<uint64_t>& sorted) {
        auto first = sorted.begin();
        for (uint64_t group = 0; group < group_count; ++group) {
            const auto last = std::find_if(
                first, sorted.end(), [&](uint64_t hash) { return group_of(hash, group_count) != group; });
            seeds[group] = best_seed({first, last});
            first = last;
        }
    }
    bool place(const At& at, const KeySet::Key& key, uint32_t number) {
        Slot* slot = lines[at.line].slot;
        return fill_slot(slot[at.half], key.digest, number) ||
               (kSlots == 2 && fill_slot(slot[at.half ^ 1], key.digest, number));
    }

    void prefetch_auxiliary(uint64_t hash) const {
        if constexpr (kGroup != 0) {
            __builtin_prefetch(&seeds[group_of(hash, group_count)]);
        }
    }
    At home(uint64_t hash) const {
        const uint64_t half = kSlots == 2 ? hash & 1 : 0;
        if constexpr (kGroup == 0) {
            return {group_of(hash, line_count), half, 0};
        } else {
            const uint64_t group = group_of(hash, group_count);
            return {group * kGroup + in_group(hash, seeds[group]), half, 0};
        }
    }
    void prefetch(const At& at) const { __builtin_prefetch(&lines[at.line]); }
    bool is_aimed(const At&) const { return true; }
    uint64_t first(const At& at) const { return at.line * kSlots + at.half; }
    InLine look(const At& at, const DigestKey& key, Answer* answer) const {
        InLine said = look_at_slot(lines[at.line].slot[at.half], first(at), key, answer);
        if (kSlots == 2 && said == InLine::kNext) {
            said = look_at_slot(lines[at.line].slot[at.half ^ 1], first(at) ^ 1, key, answer);
        }
        return said;
    }
    void next(At& at) const {
        if (kThen == Then::kNextLine) {
            at.line = at.line + 1 == line_count ? 0 : at.line + 1;
        } else if (at.steps++ % 2 == 0) {
            at.line ^= 1;
        } else {
            at.line = (at.line ^ 1) + 2;
            at.line -= at.line >= line_count ? line_count : 0;
        }
    }

  private:
    static uint64_t in_group(uint64_t hash, uint64_t seed) {
        return hash * (kMultiplier + seed * kSeedStep) >> (64 - std::bit_width(kGroup - 1));
    }
    static size_t homeless(std::span<const uint64_t> hashes, uint64_t seed) {
        std::array<uint8_t, kGroup + 1> taken{};
        size_t count = 0;
        for (const uint64_t hash : hashes) {
            count += ++taken[in_group(hash, seed)] > kSlots ? 1 : 0;
        }
        return count;
    }
    static uint8_t best_seed(std::span<const uint64_t> hashes) {
        uint64_t best = 0;
        size_t fewest = hashes.size() + 1;
        for (uint64_t seed = 0; seed < 256 && fewest != 0; ++seed) {
            const size_t count = homeless(hashes, seed);
            best = count < fewest ? seed : best;
            fewest = std::min(fewest, count);
        }
        return static_cast<uint8_t>(best);
    }
};

/// A byte for 2.5 keys says which of 256 functions brings each of them to a slot of its own.
///
/// Source: hash and displace as in shm/group_seeds.h; groups that find no room put others out, as in R. Groot
/// Koerkamp, "PtrHash: Minimal Perfect Hashing at RAM Throughput", 2025.
struct Displaced {
    static constexpr size_t kStride = sizeof(Slot);
    static constexpr bool kNextIsKnown = true;
    using At = uint64_t;

    Slot* lines = nullptr;
    uint8_t* seeds = nullptr;
    uint64_t slot_count = 0;
    uint64_t byte_count = 0;
    uint64_t multiplier = kMultiplier;

    void size(uint64_t keys, double load, uint64_t* slots, uint64_t* auxiliary) {
        slot_count = static_cast<uint64_t>(std::ceil(static_cast<double>(keys) / load));
        byte_count = static_cast<uint64_t>(std::ceil(static_cast<double>(keys) / 2.5));
        *slots = slot_count;
        *auxiliary = byte_count;
    }
    void choose(const std::vector<uint64_t>& sorted);
    bool place(At at, const KeySet::Key& key, uint32_t number) {
        return fill_slot(lines[at], key.digest, number) || (fail("two keys were given one slot"), false);
    }

    void prefetch_auxiliary(uint64_t hash) const { __builtin_prefetch(&seeds[group_of(hash, byte_count)]); }
    At home(uint64_t hash) const { return slot_of(hash, seeds[group_of(hash, byte_count)]); }
    uint64_t slot_of(uint64_t hash, uint64_t seed) const {
        return group_of(hash * (multiplier + seed * kSeedStep), slot_count);
    }
    void prefetch(At at) const { __builtin_prefetch(&lines[at]); }
    bool is_aimed(At) const { return true; }
    uint64_t first(At at) const { return at; }
    InLine look(At at, const DigestKey& key, Answer* answer) const {
        return look_at_slot(lines[at], at, key, answer) == InLine::kFound ? InLine::kFound : InLine::kEnd;
    }
    void next(At&) const {}
};

/// Chooses the displacement bytes, the largest groups first.
class Displacer {
  public:
    Displacer(const Displaced& layout, const std::vector<uint64_t>& sorted)
        : layout_(layout), hashes_(sorted), starts_(layout.byte_count + 1), owner_(layout.slot_count) {
        for (const uint64_t hash : sorted) {
            ++starts_[group_of(hash, layout.byte_count) + 1];
        }
        for (uint64_t group = 0; group < layout.byte_count; ++group) {
            starts_[group + 1] += starts_[group];
        }
    }

    /// False: it put out so many groups that another multiplier is worth a try.
    bool run() {
        std::vector<uint32_t> order(layout_.byte_count);
        for (uint32_t group = 0; group < order.size(); ++group) {
            order[group] = group;
        }
        std::stable_sort(order.begin(), order.end(),
                         [&](uint32_t a, uint32_t b) { return keys_of(a).size() > keys_of(b).size(); });
        uint64_t left = hashes_.size() * 4 + 10000;
        for (const uint32_t group : order) {
            waiting_.assign(1, group);
            while (!waiting_.empty()) {
                const uint32_t next = waiting_.back();
                waiting_.pop_back();
                if (left-- == 0 || !settle(next)) {
                    return false;
                }
            }
        }
        return true;
    }

  private:
    std::span<const uint64_t> keys_of(uint64_t group) const {
        return std::span(hashes_).subspan(starts_[group], starts_[group + 1] - starts_[group]);
    }
    /// What it would cost to put out all who stand where the group's keys would; kNoSlot where two of the
    /// group's own meet. Gives up above `most`.
    uint64_t cost(uint32_t group, uint64_t seed, uint64_t most) const {
        const auto keys = keys_of(group);
        uint64_t sum = 0;
        for (size_t i = 0; i < keys.size() && sum < most; ++i) {
            const uint64_t slot = layout_.slot_of(keys[i], seed);
            if (owner_[slot] != 0) {
                const uint64_t size = keys_of(owner_[slot] - 1).size();
                sum += size * size;
            }
            for (size_t j = 0; j < i; ++j) {
                if (layout_.slot_of(keys[j], seed) == slot) {
                    return kNoSlot;
                }
            }
        }
        return sum;
    }
    bool settle(uint32_t group) {
        uint64_t best = 0;
        uint64_t least = kNoSlot;
        const uint64_t from = random_();
        for (uint64_t i = 0; i < 256 && least != 0; ++i) {
            const uint64_t seed = (from + i) % 256;
            const uint64_t now = cost(group, seed, least);
            best = now < least ? seed : best;
            least = std::min(least, now);
        }
        if (least == kNoSlot) {
            return false;
        }
        for (const uint64_t hash : keys_of(group)) {
            const uint32_t other = owner_[layout_.slot_of(hash, best)];
            if (other != 0) {
                put_out(other - 1);
            }
        }
        layout_.seeds[group] = static_cast<uint8_t>(best);
        for (const uint64_t hash : keys_of(group)) {
            owner_[layout_.slot_of(hash, best)] = group + 1;
        }
        return true;
    }
    void put_out(uint32_t group) {
        for (const uint64_t hash : keys_of(group)) {
            owner_[layout_.slot_of(hash, layout_.seeds[group])] = 0;
        }
        waiting_.push_back(group);
    }

    const Displaced& layout_;
    const std::vector<uint64_t>& hashes_;
    std::vector<uint32_t> starts_;
    std::vector<uint32_t> owner_;  ///< group + 1 by slot, 0: free
    std::vector<uint32_t> waiting_;
    std::mt19937_64 random_{13};
};

void Displaced::choose(const std::vector<uint64_t>& sorted) {
    for (uint64_t attempt = 1; attempt <= 8; ++attempt) {
        if (Displacer(*this, sorted).run()) {
            return;
        }
        std::fprintf(stderr, "layouts: displacement bytes once more\n");
        multiplier = scatter(attempt) | 1;
    }
    fail("no displacement bytes were found");
}

/// Groups of 16 tags compared at once, their slots apart; probed group by group.
///
/// Source: the groups of Abseil's Swiss tables (M. Kulukundis, CppCon 2017) and of Folly's F14.
struct Tagged {
    static constexpr uint64_t kGroup = 16;
    static constexpr size_t kStride = sizeof(Slot);
    static constexpr bool kNextIsKnown = false;
    struct At {
        uint64_t group;
        unsigned candidates;  ///< a bit for each slot whose tag agrees
        uint8_t tag;
    };

    Slot* lines = nullptr;
    uint8_t* seeds = nullptr;  ///< the tags; 0: empty
    uint64_t group_count = 0;

    void size(uint64_t keys, double load, uint64_t* slots, uint64_t* auxiliary) {
        group_count = static_cast<uint64_t>(std::ceil(static_cast<double>(keys) / load / kGroup));
        *slots = group_count * kGroup;
        *auxiliary = *slots;
    }
    void choose(const std::vector<uint64_t>&) {}
    bool place(const At& at, const KeySet::Key& key, uint32_t number) {
        const unsigned free = equal(at.group, 0);
        if (free == 0) {
            return false;
        }
        const uint64_t index = at.group * kGroup + static_cast<unsigned>(std::countr_zero(free));
        seeds[index] = at.tag;
        return fill_slot(lines[index], key.digest, number);
    }

    void prefetch_auxiliary(uint64_t hash) const {
        __builtin_prefetch(&seeds[group_of(hash, group_count) * kGroup]);
    }
    At home(uint64_t hash) const {
        const uint64_t group = group_of(hash, group_count);
        const auto tag = static_cast<uint8_t>(hash | 0x80);
        return {group, equal(group, tag), tag};
    }
    void prefetch(const At& at) const {
        if (is_aimed(at)) {
            __builtin_prefetch(&lines[first(at)]);
        }
    }
    bool is_aimed(const At& at) const { return at.candidates != 0; }
    uint64_t first(const At& at) const {
        return at.group * kGroup + static_cast<unsigned>(std::countr_zero(at.candidates));
    }
    InLine look(const At& at, const DigestKey& key, Answer* answer) const {
        for (At left = at; left.candidates != 0; left.candidates &= left.candidates - 1) {
            if (look_at_slot(lines[first(left)], first(left), key, answer) == InLine::kFound) {
                return InLine::kFound;
            }
        }
        return equal(at.group, 0) != 0 ? InLine::kEnd : InLine::kNext;
    }
    void next(At& at) const {
        at.group = at.group + 1 == group_count ? 0 : at.group + 1;
        at.candidates = equal(at.group, at.tag);
    }
    void prefetch_next(const At& at) const {
        __builtin_prefetch(&seeds[(at.group + 1) % group_count * kGroup]);
    }

  private:
    unsigned equal(uint64_t group, uint8_t tag) const {
        const __m128i tags = _mm_load_si128(reinterpret_cast<const __m128i*>(&seeds[group * kGroup]));
        const __m128i same = _mm_cmpeq_epi8(tags, _mm_set1_epi8(static_cast<char>(tag)));
        return static_cast<unsigned>(_mm_movemask_epi8(same));
    }
};

// ---- the path of a verdict

uint64_t thread_ns() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

/// Nanoseconds for each key that `present(from)` presents, kChunk at a call, for at least so long.
template <typename Present>
double time_each(size_t from, uint64_t least_ns, Present present) {
    const uint64_t before = thread_ns();
    uint64_t keys = 0;
    uint64_t took = 0;
    do {
        present(from);
        from = (from + kChunk) % kStreamKeys;
        keys += kChunk;
        took = thread_ns() - before;
    } while (took < least_ns);
    return static_cast<double>(took) / static_cast<double>(keys);
}

/// A table of any arrangement.
class Rival {
  public:
    Rival(const char* its_name, double its_load) : name(its_name), load(its_load) {}
    virtual ~Rival() = default;
    virtual void build(const KeySet& set, bool huge) = 0;
    virtual double measure(const Stream& stream, bool batch, size_t from, uint64_t least_ns) = 0;

    const char* name;
    double load;
    double at_home = 0;  ///< per cent
    double bytes_a_key = 0;
    double bytes = 0;
};

template <typename Layout>
class Table final : public Rival {
  public:
    using Rival::Rival;

    void build(const KeySet& set, bool huge) override {
        uint64_t slots = 0;
        uint64_t auxiliary = 0;
        layout_.size(set.keys.size(), load, &slots, &auxiliary);
        const uint64_t slot_bytes = (slots * Layout::kStride + 63) / 64 * 64;
        table_ = std::make_unique<Memory>(slot_bytes + auxiliary, huge);
        counts_ = std::make_unique<Memory>(slots * sizeof(Cell) + slots / kCellsAByte + 1, huge);
        layout_.lines = reinterpret_cast<decltype(layout_.lines)>(table_->at(0));
        layout_.seeds = table_->at(slot_bytes);
        cells_ = reinterpret_cast<Cell*>(counts_->at(0));
        dirty_ = reinterpret_cast<ByteWord*>(counts_->at(slots * sizeof(Cell)));
        layout_.choose(set.sorted_hashes);
        uint64_t home = 0;
        for (uint32_t i = 0; i < set.keys.size(); ++i) {
            auto at = layout_.home(set.keys[i].hash);
            bool is_placed = layout_.place(at, set.keys[i], i + 1);
            home += is_placed ? 1 : 0;
            while (!is_placed) {
                layout_.next(at);
                is_placed = layout_.place(at, set.keys[i], i + 1);
            }
        }
        const auto keys = static_cast<double>(set.keys.size());
        at_home = 100 * static_cast<double>(home) / keys;
        bytes = static_cast<double>(slot_bytes + auxiliary + slots * sizeof(Cell));
        bytes_a_key = bytes / keys;
        warm_up_ = std::clamp<size_t>(set.keys.size() * 2 / kChunk * kChunk, 4 * kChunk, kStreamKeys / 4);
    }

    /// Presents others first, to bring back what the rivals have put out of the caches.
    double measure(const Stream& stream, bool batch, size_t from, uint64_t least_ns) override {
        const auto present = [&](size_t at) { batch ? in_batches(stream, at) : one_by_one(stream, at); };
        for (size_t i = warm_up_; i != 0; i -= kChunk) {
            present((from - i) % kStreamKeys);
        }
        return time_each(from, least_ns, present);
    }

  private:
    static constexpr uint64_t kCellsAByte = 16;

    void prefetch_cell(const typename Layout::At& at) const {
        if (layout_.is_aimed(at)) {
            __builtin_prefetch(&cells_[layout_.first(at)], 1);
            __builtin_prefetch(&dirty_[layout_.first(at) / kCellsAByte]);
        }
    }
    [[gnu::always_inline]] Answer find(typename Layout::At at, const DigestKey& key) const {
        Answer answer;
        while (layout_.look(at, key, &answer) == InLine::kNext) {
            layout_.next(at);
        }
        return answer;
    }
    /// Counts the answer but for the total of valid ones; true for one of them.
    [[gnu::always_inline]] bool settle(const Answer& answer) {
        if (answer.index == kNoSlot || Meta::state(answer.meta) != SlotState::kActive ||
            Meta::expires_s(answer.meta) <= now_s_) {
            denied_.fetch_add(1, std::memory_order_relaxed);
            return false;
        }
        cells_[answer.index].allowed.fetch_add(1, std::memory_order_relaxed);
        ByteWord& dirty = dirty_[answer.index / kCellsAByte];
        if (dirty.load(std::memory_order_relaxed) == 0) {
            dirty.store(1, std::memory_order_relaxed);
        }
        return true;
    }

    [[gnu::noinline]] Answer validate(const char* key) {
        const char* id = native_key_id(key, kKeyBytes);
        if (id == nullptr) [[unlikely]] {
            return {};
        }
        const auto at = layout_.home(index_hash_id(id, kHashSeed));
        layout_.prefetch(at);
        prefetch_cell(at);
        uint8_t digest[kDigestLength];
        sha256_.hash(key, kKeyBytes, digest);
        const Answer answer = find(at, DigestKey::from(digest));
        if (settle(answer)) {
            allowed_.fetch_add(1, std::memory_order_relaxed);
        }
        return answer;
    }

    struct Group {
        uint64_t hash[kBatch];
        typename Layout::At at[kBatch];
        uint8_t digest[kBatch][kDigestLength];
        Answer answer[kBatch];
    };

    [[gnu::noinline]] void validate_group(const char* keys, Group* group) {
        for (size_t i = 0; i < kBatch; ++i) {
            const char* id = native_key_id(keys + i * kKeyBytes, kKeyBytes);
            group->hash[i] = id != nullptr ? index_hash_id(id, kHashSeed) : 0;
            layout_.prefetch_auxiliary(group->hash[i]);
        }
        for (size_t i = 0; i < kBatch; ++i) {
            group->at[i] = layout_.home(group->hash[i]);
            layout_.prefetch(group->at[i]);
        }
        for (size_t i = 0; i < kBatch; i += 2) {
            prefetch_cell(group->at[i]);
            prefetch_cell(group->at[i + 1]);
            const char* key = keys + i * kKeyBytes;
            sha256_.hash_pair(key, kKeyBytes, group->digest[i], key + kKeyBytes, kKeyBytes,
                              group->digest[i + 1]);
        }
        find_all(group);
        size_t valid = 0;
        for (const Answer& answer : group->answer) {
            valid += settle(answer) ? 1 : 0;
        }
        if (valid != 0) {
            allowed_.fetch_add(valid, std::memory_order_relaxed);
        }
    }
    /// At home first; the further places of those that are not there are all prefetched before any is read.
    [[gnu::always_inline]] void find_all(Group* group) const {
        size_t away[kBatch];
        size_t away_count = 0;
        for (size_t i = 0; i < kBatch; ++i) {
            group->answer[i] = {};
            if (layout_.look(group->at[i], DigestKey::from(group->digest[i]), &group->answer[i]) !=
                InLine::kNext) {
                continue;
            }
            if constexpr (Layout::kNextIsKnown) {
                layout_.next(group->at[i]);
                layout_.prefetch(group->at[i]);
                prefetch_cell(group->at[i]);
            } else {
                layout_.prefetch_next(group->at[i]);
            }
            away[away_count++] = i;
        }
        for (size_t i = 0; i < away_count; ++i) {
            if constexpr (!Layout::kNextIsKnown) {
                layout_.next(group->at[away[i]]);
            }
            group->answer[away[i]] = find(group->at[away[i]], DigestKey::from(group->digest[away[i]]));
        }
    }

    void check(bool right) const {
        if (!right) [[unlikely]] {
            fmt::print(stderr, "{} at {}: ", name, load);
            fail("a wrong answer");
        }
    }
    void one_by_one(const Stream& stream, size_t from) {
        for (size_t i = from; i < from + kChunk; ++i) {
            check(validate(stream.texts.data() + i * kKeyBytes).number == stream.expected[i]);
        }
    }
    void in_batches(const Stream& stream, size_t from) {
        Group group;
        for (size_t at = from; at < from + kChunk; at += kBatch) {
            validate_group(stream.texts.data() + at * kKeyBytes, &group);
            for (size_t i = 0; i < kBatch; ++i) {
                check(group.answer[i].number == stream.expected[at + i]);
            }
        }
    }

    const Sha256Kernel& sha256_ = sha256_kernel();
    const uint64_t now_s_ = static_cast<uint64_t>(std::time(nullptr));
    Layout layout_;
    Cell* cells_ = nullptr;
    ByteWord* dirty_ = nullptr;
    size_t warm_up_ = 0;
    std::unique_ptr<Memory> table_;
    std::unique_ptr<Memory> counts_;
    alignas(64) Word allowed_{0};
    Word denied_{0};
};

using Rivals = std::vector<std::unique_ptr<Rival>>;

template <typename Layout>
void add(Rivals* rivals, const char* name, std::initializer_list<double> loads) {
    for (const double load : loads) {
        rivals->push_back(std::make_unique<Table<Layout>>(name, load));
    }
}

Rivals all_rivals() {
    Rivals rivals;
    add<InLines<PairLine, 0>>(&rivals, "pairs in a line", {0.5, 0.6, 0.7, 0.8});
    add<InLines<PairLine, 0, Then::kNeighbour>>(&rivals, "pairs, then the neighbour line", {0.6});
    add<InLines<PairLine, 16>>(&rivals, "pairs, a seed for 16 lines", {0.5, 0.6, 0.7, 0.8});
    add<InLines<PairLine, 8>>(&rivals, "pairs, a seed for 8 lines", {0.6});
    add<InLines<PairLine, 32>>(&rivals, "pairs, a seed for 32 lines", {0.6});
    add<Displaced>(&rivals, "a displacement byte for 2.5 keys, no key away", {0.9});
    add<Tagged>(&rivals, "16 tags in SIMD, slots apart", {0.5, 0.6, 0.7, 0.8});
    add<InLines<SingleLine, 0>>(&rivals, "64-byte slots", {0.5, 0.6, 0.7, 0.8});
    return rivals;
}

// ---- measuring

struct Options {
    std::vector<uint64_t> sizes = {1'000, 100'000, 1'000'000, 10'000'000};
    std::vector<std::string> pages = {"4k", "2m"};
    uint64_t least_ms = 20;
    std::string json;
};

struct Quartiles {
    double q1 = 0;
    double median = 0;
    double q3 = 0;
};

Quartiles quartiles(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const auto at = [&](double share) {
        const double place = share * static_cast<double>(values.size() - 1);
        const auto below = static_cast<size_t>(place);
        const size_t above = std::min(below + 1, values.size() - 1);
        return values[below] + (values[above] - values[below]) * (place - static_cast<double>(below));
    };
    return {at(0.25), at(0.5), at(0.75)};
}

/// One size on one kind of pages.
struct Sized {
    struct Row {
        std::string name;
        double load;
        double at_home;
        double bytes_a_key;
        std::array<Quartiles, kMeasures.size()> ns;
    };
    uint64_t keys = 0;
    double mib = 0;
    double mib_huge = 0;
    Quartiles sha256;
    Quartiles sha256_pair;  ///< for each of the two
    std::vector<Row> rows;
};

double time_sha256(const Stream& stream, bool pairs, uint64_t least_ns) {
    const Sha256Kernel& kernel = sha256_kernel();
    return time_each(0, least_ns, [&](size_t from) {
        uint8_t digest[2][kDigestLength];
        for (size_t i = from; i < from + kChunk; i += 2) {
            const char* key = stream.texts.data() + i * kKeyBytes;
            if (pairs) {
                kernel.hash_pair(key, kKeyBytes, digest[0], key + kKeyBytes, kKeyBytes, digest[1]);
            } else {
                kernel.hash(key, kKeyBytes, digest[0]);
                kernel.hash(key + kKeyBytes, kKeyBytes, digest[1]);
            }
            asm volatile("" : : "r"(digest) : "memory");
        }
    });
}

Rivals build_all(uint64_t keys, bool huge, Sized* out) {
    const KeySet set(keys);
    Rivals rivals = all_rivals();
    for (const auto& rival : rivals) {
        fmt::print(stderr, "{} keys: builds {} at {}\n", keys, rival->name, rival->load);
        rival->build(set, huge);
        out->mib += rival->bytes / (1 << 20);
        out->rows.push_back({rival->name, rival->load, rival->at_home, rival->bytes_a_key, {}});
    }
    out->mib_huge = huge_mib();
    return rivals;
}

Sized measure_size(uint64_t keys, bool huge, const Options& options) {
    Sized out;
    out.keys = keys;
    const Rivals rivals = build_all(keys, huge, &out);
    const std::array<Stream, 2> streams = {Stream(keys, true), Stream(keys, false)};
    const uint64_t least_ns = options.least_ms * 1'000'000;
    const unsigned rounds = keys >= 10'000'000 ? 5 : 7;
    const size_t cells = rivals.size() * kMeasures.size();
    std::vector<std::vector<double>> taken(cells);
    std::vector<double> sha256;
    std::vector<double> sha256_pair;
    std::vector<size_t> order(cells);
    for (size_t i = 0; i < cells; ++i) {
        order[i] = i;
    }
    std::mt19937_64 random(14);
    for (unsigned round = 1; round <= rounds; ++round) {
        fmt::print(stderr, "{} keys: round {} of {}\n", keys, round, rounds);
        std::shuffle(order.begin(), order.end(), random);
        sha256.push_back(time_sha256(streams[0], false, least_ns));
        sha256_pair.push_back(time_sha256(streams[0], true, least_ns));
        for (const size_t cell : order) {
            const size_t measure = cell % kMeasures.size();
            const size_t from = random() % kStreamKeys / kChunk * kChunk;
            taken[cell].push_back(rivals[cell / kMeasures.size()]->measure(streams[measure / 2],
                                                                           measure % 2 != 0, from, least_ns));
        }
    }
    for (size_t cell = 0; cell < cells; ++cell) {
        out.rows[cell / kMeasures.size()].ns[cell % kMeasures.size()] = quartiles(taken[cell]);
    }
    out.sha256 = quartiles(sha256);
    out.sha256_pair = quartiles(sha256_pair);
    return out;
}

// ---- telling

std::string short_size(uint64_t keys) {
    return keys % 1'000'000 == 0 ? fmt::format("{} M", keys / 1'000'000)
           : keys % 1'000 == 0   ? fmt::format("{} k", keys / 1'000)
                                 : fmt::format("{}", keys);
}

void print_pass(bool huge, const std::vector<Sized>& pass) {
    fmt::print("\n{} pages. Nanoseconds a key, medians.\n\n", huge ? "2 MiB" : "4 KiB");
    std::string head = "| slots | load | at home | bytes a key |";
    std::string rule = "| --- | --- | --- | --- |";
    for (const char* measure : kMeasures) {
        for (const Sized& sized : pass) {
            head += fmt::format(" {}: {} |", measure, short_size(sized.keys));
            rule += " --- |";
        }
    }
    std::string spreads = "\n| slots | load | spread |\n| --- | --- | --- |\n";
    std::string rows;
    for (size_t row = 0; row < pass[0].rows.size(); ++row) {
        const Sized::Row& last = pass.back().rows[row];
        rows += fmt::format("| {} | {:.1f} | {:.1f}% | {:.0f} |", last.name, last.load, last.at_home,
                            last.bytes_a_key);
        std::vector<double> spread;
        for (size_t measure = 0; measure < kMeasures.size(); ++measure) {
            for (const Sized& sized : pass) {
                const Quartiles& ns = sized.rows[row].ns[measure];
                rows += fmt::format(" {:.0f} |", ns.median);
                spread.push_back(100 * (ns.q3 - ns.q1) / ns.median);
            }
        }
        rows += "\n";
        spreads += fmt::format("| {} | {:.1f} | {:.1f}% |\n", last.name, last.load, quartiles(spread).median);
    }
    for (const Sized& sized : pass) {
        fmt::print(
            "- {} keys: SHA-256 {:.1f} ns, in pairs {:.1f} ns each; tables of {:.0f} MiB, {:.0f} on huge "
            "pages\n",
            short_size(sized.keys), sized.sha256.median, sized.sha256_pair.median, sized.mib, sized.mib_huge);
    }
    fmt::print("\n{}\n{}\n{}{}", head, rule, rows, spreads);
    std::fflush(stdout);
}

std::string json_of(const Quartiles& ns) {
    return fmt::format(R"({{"q1": {:.3f}, "median": {:.3f}, "q3": {:.3f}}})", ns.q1, ns.median, ns.q3);
}

/// A size on one kind of pages.
std::string json_of(bool huge, const Sized& sized) {
    std::string rows;
    for (const Sized::Row& row : sized.rows) {
        rows += fmt::format(
            R"({}{{"slots": "{}", "load": {:.1f}, "at_home_percent": {:.3f}, "bytes_a_key": {:.3f})",
            rows.empty() ? "" : ",\n  ", row.name, row.load, row.at_home, row.bytes_a_key);
        for (size_t measure = 0; measure < kMeasures.size(); ++measure) {
            rows += fmt::format(R"(, "{}": {})", kMeasures[measure], json_of(row.ns[measure]));
        }
        rows += "}";
    }
    return fmt::format(R"({{"pages": "{}", "keys": {}, "mib": {:.1f}, "mib_huge": {:.1f}, )",
                       huge ? "2m" : "4k", sized.keys, sized.mib, sized.mib_huge) +
           fmt::format(R"("sha256": {}, "sha256_pair": {}, "rows": [{}]}})", json_of(sized.sha256),
                       json_of(sized.sha256_pair), rows);
}

void write_json(const std::string& path, const std::string& objects) {
    std::FILE* file = std::fopen(path.c_str(), "w");
    if (file == nullptr || std::fprintf(file, "[%s]\n", objects.c_str()) < 0 || std::fclose(file) != 0) {
        fail("cannot write the JSON file");
    }
}

void add_options(CLI::App& app, Options& options) {
    app.add_option("--keys", options.sizes, "sizes of the key sets; 10 million take 18 GB")
        ->delimiter(',')
        ->check(CLI::Range(uint64_t{100}, uint64_t{100'000'000}))
        ->capture_default_str();
    app.add_option("--pages", options.pages, "the pages that tables stand on, one after the other")
        ->delimiter(',')
        ->check(CLI::IsMember({"4k", "2m"}))
        ->capture_default_str();
    app.add_option("--milliseconds", options.least_ms, "thread CPU time of a measurement, at least")
        ->check(CLI::Range(uint64_t{1}, uint64_t{10'000}))
        ->capture_default_str();
    app.add_option("--json", options.json, "a file for the medians and quartiles of all cells");
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{
        "Measures arrangements of a table's slots beside each other; checks every answer.\n"
        "Tables go to standard output as Markdown, progress to standard error."};
    Options options;
    add_options(app, options);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    std::string json;
    for (const std::string& pages : options.pages) {
        const bool huge = pages == "2m";
        std::vector<Sized> pass;
        for (const uint64_t keys : options.sizes) {
            pass.push_back(measure_size(keys, huge, options));
            json += (json.empty() ? "" : ",\n") + json_of(huge, pass.back());
        }
        print_pass(huge, pass);
    }
    if (!options.json.empty()) {
        write_json(options.json, json);
    }
    return 0;
}
