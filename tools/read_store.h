// The key set that the options and the configuration name, read.

#pragma once

#include <optional>
#include <string>

#include "source/source.h"
#include "tools/context.h"
#include "tools/outcome.h"

namespace apikeyd {

/// Streams the store's rows to `sink`, and answers what stands beside them. What is left out is said on
/// standard error. Rows that were handed over before a failure are provisional.
tl::expected<SourceContent, Failure> read_store(const Context& context, const RowSink& sink);

/// The row with this id; nullopt when there is none.
tl::expected<std::optional<KeyRow>, Failure> find_row(const Context& context, const std::string& id);

}  // namespace apikeyd
