// How a store of record is named: its kind, a colon, its place.

#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace apikeyd {

enum class StoreKind : uint8_t { kYaml, kSqlite, kPostgres };

/// In front of the colon, by StoreKind.
inline constexpr std::array<std::string_view, 3> kStoreKindNames = {"yaml", "sqlite", "postgresql"};

struct StoreName {
    StoreKind kind = StoreKind::kYaml;
    std::string place;  ///< of a file its path; of PostgreSQL what follows in a URI, see postgres/place.h

    [[nodiscard]] bool is_file() const { return kind != StoreKind::kPostgres; }
    /// `yaml:/etc/apikeyd/keys.yaml`
    [[nodiscard]] std::string text() const {
        return std::string(kStoreKindNames[static_cast<size_t>(kind)]).append(":").append(place);
    }
    /// What a message begins with: a file by its path alone.
    [[nodiscard]] std::string shown() const { return is_file() ? place : text(); }
};

/// The error is what is wanted, without a place to begin with; nothing in it can be a password.
Result<StoreName> store_named(std::string_view text);

/// Whether both are at one place: files by where their paths lead, also to none; databases by same_database()
/// in postgres/place.h.
bool same_place(const StoreName& a, const StoreName& b);

}  // namespace apikeyd
