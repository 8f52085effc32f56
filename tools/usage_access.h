// The usage store that the configuration names, brought up to date and opened.

#pragma once

#include <cstdint>
#include <optional>

#include "tools/context.h"
#include "tools/outcome.h"
#include "usage/usage_reader.h"

namespace apikeyd {

struct OpenUsage {
    UsageReader reader;
    bool complete;  ///< a flush came first
    /// Answers that were counted and are not in the store, of the generations that servers count in; nullopt:
    /// shared memory does not tell.
    std::optional<uint64_t> unflushed;
};

/// Has the daemon flush its counts first, unless `flush` is false. Counts that could not be flushed are told
/// of on standard error: nobody should have to guess why a number is too small.
tl::expected<OpenUsage, Failure> open_usage(const Context& context, bool flush);

}  // namespace apikeyd
