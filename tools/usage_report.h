// How often keys were allowed and denied, and how often each code was answered, out of the usage store to
// standard output.

#pragma once

#include <optional>
#include <string>

#include "tools/key_groups.h"
#include "tools/output.h"
#include "usage/usage_reader.h"

namespace apikeyd {

/// What is wanted of the store.
struct UsageQuestion {
    std::optional<RollupQuery> stretch = std::nullopt;  ///< nullopt: all that was ever counted
    bool each_step = false;                             ///< a line for each step of the stretch
    const KeyGroups* keys = nullptr;                    ///< nullptr: every key
    GroupBy group_by = GroupBy::kKey;                   ///< as `keys`, which is there where it is not kKey
    bool with_keys = true;
    bool with_codes = true;
    std::optional<uint8_t> code = std::nullopt;  ///< of the codes this one only
};

/// What is said of the numbers themselves, in JSON.
struct UsageNotes {
    bool complete = false;  ///< a flush came first
    std::optional<uint64_t> unflushed =
        std::nullopt;      ///< answers that wait to be flushed; nullopt: not known
    bool partial = false;  ///< some of the stretch is not kept any more
};

/// Prints it; holds a number for each group, and a table's lines. CSV is one table, the keys' where they are
/// wanted.
Outcome print_usage(UsageReader& reader, const UsageQuestion& question, const UsageNotes& notes,
                    OutputForm form);

}  // namespace apikeyd
