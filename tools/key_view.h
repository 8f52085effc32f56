// What people are shown of a key.

#pragma once

#include <string>
#include <string_view>

#include "source/key_row.h"
#include "tools/output.h"

namespace apikeyd {

/// active, disabled, revoked, or expired for an active key whose time is over.
std::string_view shown_state(const KeyRow& row, int64_t now_s);

/// id, state, environment, owner, name, created, expires, plan; stable.
Record short_record(const KeyRow& row, int64_t now_s);

/// That, and all else that the key set says of it: scopes, addresses, limits, foreign, metadata, sha256;
/// stable.
Record full_record(const KeyRow& row, int64_t now_s);
std::vector<std::string_view> full_record_names();

/// The names in short_record().
const std::vector<std::string_view>& short_record_names();

}  // namespace apikeyd
