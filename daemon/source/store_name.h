// How a store of record is named: its kind, a colon, its place.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace apikeyd {

enum class StoreKind : uint8_t { kYaml, kSqlite };

/// In front of the colon, by StoreKind.
inline constexpr std::array<std::string_view, 2> kStoreKindNames = {"yaml", "sqlite"};

struct StoreName {
    StoreKind kind = StoreKind::kYaml;
    std::string place;  ///< of a file its path

    /// `yaml:/etc/apikeyd/keys.yaml`
    [[nodiscard]] std::string text() const {
        return std::string(kStoreKindNames[static_cast<size_t>(kind)]).append(":").append(place);
    }
};

/// nullopt for what begins with no kind, or has nothing behind it.
inline std::optional<StoreName> store_named(std::string_view text) {
    for (size_t kind = 0; kind < kStoreKindNames.size(); ++kind) {
        const size_t colon = kStoreKindNames[kind].size();
        if (text.size() > colon + 1 && text.starts_with(kStoreKindNames[kind]) && text[colon] == ':') {
            return StoreName{static_cast<StoreKind>(kind), std::string(text.substr(colon + 1))};
        }
    }
    return std::nullopt;
}

}  // namespace apikeyd
