// The rows of a snapshot's file: what is written there, and what it says of itself. Private to daemon/source.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "source/key_row.h"
#include "source/policy_rows.h"
#include "source/source.h"
#include "sql/connection.h"

namespace apikeyd::snapshot_rows {

inline constexpr std::string_view kDoingRead = "reading it";
inline constexpr std::string_view kDoingWrite = "writing it";

/// As messages call it.
std::string named(const std::string& path);

/// Steps a statement that gives no rows.
Result<void> run_writing(const SqlConnection& connection, SqlStatement& statement);
/// The same of SQL that has no parameters; several, with ';' between.
Result<void> run_writing(const SqlConnection& connection, const char* sql);

Result<SqlStatementPtr> prepare_put_key(const SqlConnection& connection);
Result<void> put_key(const SqlConnection& connection, SqlStatement& put, const KeyRow& row);
/// In place of all that are there.
Result<void> put_policies(const SqlConnection& connection, const PolicySet& policies);

/// A key that must not be accepted any more, whatever else is written.
struct Tightened {
    std::array<uint8_t, 32> digest{};
    bool gone = false;
};
Result<void> tighten(const SqlConnection& connection, const std::vector<Tightened>& keys);

/// What the table `snapshot` says.
struct Standing {
    std::string source;
    Fingerprint fingerprint{};
    int64_t taken_s = 0;
};
/// nullopt: it is not whole.
Result<std::optional<Standing>> read_standing(const SqlConnection& connection);
Result<void> write_standing(const SqlConnection& connection, const Standing& standing);

}  // namespace apikeyd::snapshot_rows
