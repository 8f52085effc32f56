// Keys of the native form made from their numbers, so that none has to be kept.

#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "shm/key_form.h"

namespace apikey::bench {

inline constexpr std::string_view kGeneratedPrefix = "ak_live";
using GeneratedKey = std::array<char, kGeneratedPrefix.size() + 1 + shm::kNativeTailLength>;

/// The same one at every call. Ends the program when the key's random bytes run out, which no number in use
/// leads to.
GeneratedKey known_key(uint64_t number);
/// Of another family: in no set.
GeneratedKey unknown_key(uint64_t number);

inline std::string_view text(const GeneratedKey& key) {
    return {key.data(), key.size()};
}

}  // namespace apikey::bench
