// A key set of this process alone: a table as the daemon would build it, and hash maps with the same keys.

#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "apikey/apikey.h"
#include "bench/key_stream.h"

namespace apikey::bench {

/// What a server that does without apikeyd would keep of a key.
struct Row {
    uint64_t expires_at;
    uint32_t owner;
    uint32_t state;  ///< 0: active
};

inline Row row_of(uint64_t number) {
    return {0, static_cast<uint32_t>(number), 0};
}

/// What keys are stored under: the plaintext ('index only'), or its SHA-256, computed for each call.
enum class FoundBy : uint8_t { kKey, kDigest };

/// What key `number` is stored under. Every set has the keys from 0 on.
std::string lookup_text(uint64_t number, FoundBy by);

/// Lets the maps be asked with what was presented, without making a std::string of it.
/// Of both maps: libstdc++'s MurmurHash, which is faster than boost::hash and mixes as well.
struct TextHash {
    using is_transparent = void;
    using is_avalanching = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using Map = boost::unordered_flat_map<std::string, Row, TextHash, std::equal_to<>>;

/// How keys are drawn.
enum class Draw : uint8_t { kHitUniform, kHitZipf, kMiss, kMixed };
inline constexpr std::array kDraws = {Draw::kHitUniform, Draw::kHitZipf, Draw::kMiss, Draw::kMixed};
const char* draw_name(Draw draw);

/// What a table's files are backed by: 2 MiB pages as far as the kernel gives them, which is what the daemon
/// asks for, or 4 KiB ones, as the heap of the peers is.
enum class Pages : uint8_t { kHuge, kSmall };

/// What a valid answer spends: nothing, or of limits that never refuse in a run, so that what they cost
/// shows.
enum class Limits : uint8_t { kNone, kRate, kOwnersRate, kRateAndQuota };
inline constexpr std::array kLimits = {Limits::kRate, Limits::kOwnersRate, Limits::kRateAndQuota};
const char* limits_name(Limits limits);

/// Of all files of a table.
struct TableBytes {
    uint64_t all;
    uint64_t huge;  ///< backed by 2 MiB pages
};

/// Everything is made at its first use, so that a filtered run does not pay for what it leaves out, and kept.
/// Failures end the program with a message: there is nothing to measure then.
class PrivateSet {
  public:
    explicit PrivateSet(uint64_t keys) : keys_(keys) {}
    PrivateSet(const PrivateSet&) = delete;
    PrivateSet& operator=(const PrivateSet&) = delete;

    /// A client of a table with the keys. Its files have lost their names already: whatever ends this
    /// program leaves nothing behind.
    apikey_client* client(Pages pages = Pages::kHuge);
    /// The same where all keys have one plan, or one owner that has it.
    apikey_client* limited_client(Limits limits);
    /// Of the table with huge pages, once client() has been called.
    TableBytes table_bytes() const { return table_bytes_; }
    const Map& by_key();     ///< plaintext -> row
    const Map& by_digest();  ///< the 32 bytes of SHA-256 -> row
    const KeyStream& stream(Draw draw);
    uint64_t keys() const { return keys_; }

  private:
    uint64_t keys_;
    std::array<apikey_client*, 2> clients_{};                   // by Pages
    std::array<apikey_client*, kLimits.size() + 1> limited_{};  // by Limits
    TableBytes table_bytes_{};
    std::unique_ptr<Map> by_key_;
    std::unique_ptr<Map> by_digest_;
    std::array<std::unique_ptr<KeyStream>, kDraws.size()> streams_;
};

}  // namespace apikey::bench
