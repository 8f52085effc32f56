// A small segment in which all that a client or a daemon reads is there once: keys of both forms, scopes,
// plans with every kind of limit, owners, addresses, overrides, meters. For fuzzers to spoil.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "shm/table_writer.h"

namespace apikey::fuzz {

inline constexpr unsigned kKeys = 24;

/// A key as a client presents it and as a table knows it.
struct FuzzKey {
    std::string text;
    std::string id;
    bool foreign;
    uint8_t sha256[32];

    shm::DigestKey digest() const { return shm::DigestKey::from(sha256); }
    uint64_t hash(uint64_t seed) const;
};

/// Of these the first kKeys stand in the table; the last one does not.
const std::vector<FuzzKey>& fuzz_keys();

/// The bytes of a generation's files. The seed decides where keys stand.
std::vector<uint8_t> valid_table(uint32_t generation, uint32_t predecessor, uint64_t seed);
std::vector<uint8_t> valid_cells(uint32_t generation, uint32_t predecessor);

/// A part of a file, so that what is spoilt need not be guessed among thousands of bytes.
struct Area {
    size_t offset;
    size_t bytes;
};
inline constexpr size_t kAreas = 7;
/// The header's rest, slots, policies, plans with owners, scopes, details, and what they have not used yet.
std::span<const Area, kAreas> table_areas();
/// The header, totals, cells, meters of the first keys, owners' meters, dirty map, all.
std::span<const Area, kAreas> cells_areas();

}  // namespace apikey::fuzz
