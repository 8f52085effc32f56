// The key set as a YAML file: a stream of rows, or a list of everything that is wrong with it.
//
//     version: 1                       # may be left out
//     scopes, plans, owners            # see policy_yaml.h
//     keys:                            # `keys: []` is a valid empty set; no `keys` at all is an error
//       - id: 2RkT9pQwX4Za             # required, 12 characters 0-9A-Za-z
//         sha256: <64 hex digits>      # required: SHA-256 of the whole key
//         state: active                # active (default), disabled, revoked
//         expires: 2027-12-01T00:00:00Z  # RFC 3339; null or absent: never
//         environment: live            # [a-z0-9]{1,15}; required unless foreign
//         owner: acme
//         name: CI deploy
//         created: 2026-11-23T02:00:00Z
//         foreign: false               # true: an imported key of any form, found by its digest
//         metadata: {team: x}          # at most 4 KiB as JSON
//         plan, limits, addresses, scopes  # see policy_yaml.h
// Everything else is an error. `id: 012345678901` is the text as written, quoted or not.

#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "base/result.h"
#include "source/key_row.h"
#include "source/source.h"
#include "source/yaml_events.h"

namespace apikeyd {

struct YamlSummary {
    uint64_t keys = 0;
    PolicySet policies;
    std::vector<std::string> warnings;  ///< `file:line:column: what`: nothing that keeps the set from use
};

/// Streams the rows of `text` to `sink` in their order. `file` stands in front of each error. Rows handed
/// over before an error are provisional: apply nothing unless this returns a summary. Parsing goes on after
/// an error where that is possible, so that one run shows all of them. Holds 96 bytes a key for finding
/// duplicates, and one row. Thread-safe.
tl::expected<YamlSummary, YamlErrors> parse_key_set(std::string_view text, const std::string& file,
                                                    const RowSink& sink, const YamlLimits& limits = {});

/// All rows at once, the errors joined into one message of several lines.
Result<std::vector<KeyRow>> parse_key_rows(std::string_view text, const std::string& file,
                                           const YamlLimits& limits = {});

/// One thing to call with the events of a key set, for those who watch them on the way (yaml_locate.h).
bool run_key_set(std::string_view text, const YamlLimits& limits, const RowSink& sink, YamlReporter& reporter,
                 const std::function<YamlVisitor*(YamlVisitor& parser)>& wrap, YamlSummary& summary);

}  // namespace apikeyd
