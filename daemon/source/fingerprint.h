// The identity of a source's content, by which a notice is told from a change: equal ones, equal contents.

#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace apikeyd {

using Fingerprint = std::array<uint8_t, 32>;

/// SHA-256 of `text`, raw.
Fingerprint fingerprint(std::string_view text);

/// Its first 8 bytes, as `control` holds them (Control::source_fingerprint).
uint64_t fingerprint_word(const Fingerprint& whole);

}  // namespace apikeyd
