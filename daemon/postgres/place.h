// The place of a key store in PostgreSQL: the part behind `postgresql:` of a connection URI.

#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace apikeyd {

/// Whether `place` is one: `//host:5432/database?sslmode=verify-full`, `//%2Fvar%2Frun%2Fpostgresql/keys`,
/// `///keys`. Refused is a password, as it would stand in a configuration, in arguments and in messages; and
/// what libpq would take apart otherwise than it is meant, since a part of a password could come into an
/// error so. Which parameters there are is libpq's to know. An error repeats nothing that may be a password.
Result<void> check_postgres_place(std::string_view place);

/// Whether both name the same database by the same words, whoever logs in and however: the user and all
/// parameters but those of an address may differ. Where no database is named, the user names it. Checked
/// places.
bool same_database(std::string_view a, std::string_view b);

/// What messages show. Of a place that check_postgres_place() refuses only what stands before anything that
/// may be a password.
std::string shown_place(std::string_view place);

}  // namespace apikeyd
