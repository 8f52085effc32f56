// Which keys are wanted, and what is shown of one: by the command line and by the door alike.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "source/key_row.h"
#include "tools/context.h"
#include "tools/outcome.h"
#include "tools/output.h"

namespace apikeyd {

/// Empty: whatever it is.
struct KeyQuery {
    std::string owner;
    std::string state;  ///< as shown_state() has it
    std::string environment;
    std::string plan;
    std::vector<std::string> tags;  ///< all of these

    [[nodiscard]] bool matches(const KeyRow& row, int64_t now_s) const;
};

/// Hands over the store's keys behind the id `after` in the order of ids, until `visit` answers false: a key
/// that goes does not move the next page.
Outcome read_page(const Context& context, const std::string& after,
                  const std::function<bool(const KeyRow& row)>& visit);

/// The key with this id. Cause::kMissing where there is none.
tl::expected<KeyRow, Failure> read_key(const Context& context, const std::string& id);

/// full_record(), and allowed, denied, last_used as the usage store has them: nothing where it cannot be
/// read.
Record known_record(const Context& context, const KeyRow& row);

}  // namespace apikeyd
