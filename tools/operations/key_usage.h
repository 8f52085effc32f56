// What one key was used, out of the usage store: for the command line and for the door alike.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tools/context.h"
#include "tools/outcome.h"
#include "tools/output.h"
#include "usage/usage_reader.h"

namespace apikeyd {

/// The key's counts in all, zeroes for one without. Cause::kMissing where neither the key set nor the usage
/// store knows it.
tl::expected<KeyTotal, Failure> total_of(const Context& context, UsageReader& reader, const std::string& id);

/// id, allowed, denied, last_used; stable.
Record total_record(const KeyTotal& total);

/// What of a stretch is kept.
struct KeptStretch {
    std::optional<int64_t> first_s;  ///< the first step with a count; nullopt: there is none
    bool partial;                    ///< sums would lack what is not kept any more
};
/// `from_its_start`: the stretch is wanted from its start on; else from where there is something.
tl::expected<KeptStretch, Failure> kept_of(UsageReader& reader, const RollupQuery& stretch,
                                           bool from_its_start);

}  // namespace apikeyd
