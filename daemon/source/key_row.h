// One key as a source of record holds it: everything but the key itself.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "source/policy_rows.h"

namespace apikeyd {

enum class KeyState : uint8_t { kActive, kDisabled, kRevoked };

/// Names by KeyState: in key sets, on the admin socket and for people.
inline constexpr std::array<std::string_view, 3> kKeyStateNames = {"active", "disabled", "revoked"};

constexpr std::string_view key_state_name(KeyState state) {
    return kKeyStateNames[static_cast<std::size_t>(state)];
}
/// nullopt for any other word.
constexpr std::optional<KeyState> key_state_named(std::string_view name) {
    for (std::size_t i = 0; i < kKeyStateNames.size(); ++i) {
        if (kKeyStateNames[i] == name) {
            return static_cast<KeyState>(i);
        }
    }
    return std::nullopt;
}

/// A row of the source of record. `digest` is all that is kept of the key.
struct KeyRow {
    std::string id;                    ///< public, unique; 12 base62 characters
    std::array<uint8_t, 32> digest{};  ///< SHA-256 of the whole key
    bool foreign = false;              ///< imported: found by its digest, not by the id in it
    KeyState state = KeyState::kActive;
    std::string environment;  ///< `live` in `ak_live_…`; may be empty for foreign keys
    std::string owner;        ///< the account that registered; may be empty
    std::string name;
    std::string metadata;              ///< compact JSON object, at most kMetadataBytesMax; empty for none
    int64_t created_s = 0;             ///< Unix seconds; 0 when the source does not say
    std::optional<int64_t> expires_s;  ///< Unix seconds, exclusive: refused from then on; nullopt: never

    std::shared_ptr<const KeyTerms> terms;  ///< shared among rows; nullptr: none, never one that is empty

    friend bool operator==(const KeyRow& a, const KeyRow& b) {
        return a.id == b.id && a.digest == b.digest && a.foreign == b.foreign && a.state == b.state &&
               a.environment == b.environment && a.owner == b.owner && a.name == b.name &&
               a.metadata == b.metadata && a.created_s == b.created_s && a.expires_s == b.expires_s &&
               (a.terms == b.terms || (a.terms != nullptr && b.terms != nullptr && *a.terms == *b.terms));
    }
};

/// The row's terms; empty ones where it has none.
inline const KeyTerms& terms_of(const KeyRow& row) {
    static const KeyTerms none;
    return row.terms != nullptr ? *row.terms : none;
}

inline constexpr std::size_t kKeyIdLength = 12;
inline constexpr std::size_t kMetadataBytesMax = 4096;
inline constexpr std::size_t kNameBytesMax = 255;
inline constexpr std::size_t kEnvironmentBytesMax = 15;
/// Different environments in one key set; a slot names one in four bits.
inline constexpr std::size_t kEnvironmentsMax = 15;
/// The last second a key's details can give as its creation: 2106-02-07T06:28:15Z.
inline constexpr int64_t kCreatedMax_s = UINT32_MAX;
/// The last second a slot's expiry can express: 2242-03-16T12:56:30Z.
inline constexpr int64_t kExpiresMax_s = (int64_t{1} << 33) - 2;

}  // namespace apikeyd
