// The key set that the options and the configuration name, read.

#pragma once

#include "source/yaml_source.h"
#include "tools/context.h"
#include "tools/outcome.h"

namespace apikeyd {

/// Streams the store's rows to `sink`, and answers what stands beside them. Rows that were handed over before
/// a failure are provisional, see parse_key_set().
tl::expected<PolicySet, Failure> read_store(const Context& context, const RowSink& sink);

}  // namespace apikeyd
