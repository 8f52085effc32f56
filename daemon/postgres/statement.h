// A statement with its parameters and its rows. Private to daemon/postgres.

#pragma once

#include <string_view>

#include "base/result.h"
#include "postgres/session.h"
#include "sql/connection.h"

namespace apikeyd {

/// What PostgresConnection::prepare() answers; the session outlives it.
Result<SqlStatementPtr> make_statement(PostgresSession& session, std::string_view sql);

}  // namespace apikeyd
