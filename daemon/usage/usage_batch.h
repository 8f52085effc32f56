// Counts by the hour on their way from a host's usage store to the database of its fleet.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace apikeyd {

/// The random identity of a usage store.
using UsageUid = std::array<uint8_t, 16>;

/// All that was counted for a key in an hour (start_s: Unix seconds), as far as it left the recent rows.
struct KeyHour {
    int64_t start_s = 0;
    std::string key_id;
    uint64_t allowed = 0;
    uint64_t denied = 0;

    friend bool operator==(const KeyHour&, const KeyHour&) = default;
};
/// How often the host answered a code in an hour.
struct CodeHour {
    int64_t start_s = 0;
    uint8_t code = 0;
    uint64_t total = 0;

    friend bool operator==(const CodeHour&, const CodeHour&) = default;
};

/// Where a walk over the keys of all hours is: behind this one.
struct KeyHourPlace {
    int64_t start_s = 0;
    std::string key_id;
};

/// What is to be sent together. The sums are whole ones and no differences, and the database keeps the
/// greater: sent twice, or late, they change nothing.
struct UsageBatch {
    UsageUid uid{};
    /// Of the batch that was noted before; 0: of none. The database numbers them: this comes behind that one,
    /// or behind the next, which then was this one without a note. It takes it and gives it the next number.
    /// Where it knows of another one, a copy of it or of the usage store was put back: then it takes nothing,
    /// gives a number that neither knows yet, and wants all anew. So no number ever stands for two things.
    uint64_t number = 0;
    std::vector<KeyHour> keys;
    std::vector<CodeHour> codes;
    bool more = false;  ///< there is more to be sent than was put in here

    /// For UsageStore::note_sent(): how far this reaches.
    struct Reach {
        int64_t mark = 0;  ///< what changed later has a higher one
        std::optional<KeyHourPlace> changed_to = std::nullopt;
        std::optional<KeyHourPlace> resent_to = std::nullopt;
        bool resent_all = false;
        std::optional<int64_t> codes_to_s = std::nullopt;
        uint64_t code_changes = 0;
    } reach{};

    /// Whether the database took it, by the number that it gave.
    [[nodiscard]] bool was_taken(uint64_t given) const { return given == number + 1 || given == number + 2; }

    [[nodiscard]] bool is_empty() const {
        return keys.empty() && codes.empty() && !reach.changed_to && !reach.resent_to && !reach.resent_all;
    }
};

}  // namespace apikeyd
