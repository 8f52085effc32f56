#include "source/snapshot_rows.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "source/key_columns.h"
#include "source/limit_text.h"
#include "source/snapshot_schema.h"
#include "source/sql_load.h"

namespace apikeyd::snapshot_rows {

namespace {

constexpr std::string_view kPutKey =
    "INSERT OR REPLACE INTO keys(id, sha256, state, expires, plan, limits, addresses, environment, owner, "
    "name, "
    "created, \"foreign\", scopes, metadata) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, "
    "?14)";

}  // namespace

std::string named(const std::string& path) {
    return std::string(kSnapshot.noun) + " " + path;
}

Result<void> run_writing(const SqlConnection& connection, SqlStatement& statement) {
    const SqlResetGuard guard(statement);
    return statement.step() == SqlStep::kDone
               ? Result<void>()
               : Result<void>(tl::unexpected(connection.last_error(kDoingWrite)));
}

Result<void> run_writing(const SqlConnection& connection, const char* sql) {
    return connection.execute(sql) ? Result<void>()
                                   : Result<void>(tl::unexpected(connection.last_error(kDoingWrite)));
}

Result<SqlStatementPtr> prepare_put_key(const SqlConnection& connection) {
    return connection.prepare(kPutKey);
}

Result<void> put_key(const SqlConnection& connection, SqlStatement& put, const KeyRow& row) {
    const KeyText text(row);
    bind_key(put, text.columns());
    return run_writing(connection, put);
}

Result<void> put_policies(const SqlConnection& connection, const PolicySet& policies) {
    Result<void> done = run_writing(connection, "DELETE FROM scopes; DELETE FROM plans; DELETE FROM owners");
    SqlStatementPtr scope, plan, owner;
    if (done) {
        done = prepare(connection, {{&scope, "INSERT INTO scopes(name) VALUES(?1)"},
                                    {&plan, "INSERT INTO plans(name, limits) VALUES(?1, ?2)"},
                                    {&owner, "INSERT INTO owners(name, plan) VALUES(?1, ?2)"}});
    }
    for (auto name = policies.scopes.begin(); done && name != policies.scopes.end(); ++name) {
        scope->bind(1, *name);
        done = run_writing(connection, *scope);
    }
    const auto bind_second = [](SqlStatement& statement, const std::string& text) {
        text.empty() ? statement.bind(2, nullptr) : statement.bind(2, std::string_view(text));
    };
    for (auto row = policies.plans.begin(); done && row != policies.plans.end(); ++row) {
        const std::string limits = format_limits(row->limits);
        plan->bind(1, row->name);
        bind_second(*plan, limits);
        done = run_writing(connection, *plan);
    }
    for (auto row = policies.owners.begin(); done && row != policies.owners.end(); ++row) {
        owner->bind(1, row->name);
        bind_second(*owner, row->plan);
        done = run_writing(connection, *owner);
    }
    return done;
}

Result<void> tighten(const SqlConnection& connection, const std::vector<Tightened>& keys) {
    SqlStatementPtr revoke, erase;
    Result<void> done = prepare(connection, {{&revoke, "UPDATE keys SET state = 'revoked' WHERE sha256 = ?1"},
                                             {&erase, "DELETE FROM keys WHERE sha256 = ?1"}});
    for (auto key = keys.begin(); done && key != keys.end(); ++key) {
        SqlStatement& statement = key->gone ? *erase : *revoke;
        statement.bind(1, std::span<const uint8_t>(key->digest));
        done = run_writing(connection, statement);
    }
    return done;
}

Result<std::optional<Standing>> read_standing(const SqlConnection& connection) {
    const Result<SqlStatementPtr> prepared =
        connection.prepare("SELECT source, fingerprint, taken FROM snapshot");
    if (!prepared) {
        return tl::unexpected(prepared.error());
    }
    SqlStatement& statement = **prepared;
    const SqlStep step = statement.step();
    if (step == SqlStep::kFailed) {
        return tl::unexpected(connection.last_error(kDoingRead));
    }
    Standing standing;
    const std::span<const uint8_t> name =
        step == SqlStep::kRow ? statement.column_blob(1) : std::span<const uint8_t>();
    if (name.size() != standing.fingerprint.size()) {
        return std::nullopt;
    }
    std::copy(name.begin(), name.end(), standing.fingerprint.begin());
    standing.source = statement.column_text(0);
    standing.taken_s = statement.column_int(2);
    return standing;
}

Result<void> write_standing(const SqlConnection& connection, const Standing& standing) {
    SqlStatementPtr put;
    if (Result<void> prepared = prepare(
            connection,
            {{&put,
              "INSERT OR REPLACE INTO snapshot(one, source, fingerprint, taken) VALUES(1, ?1, ?2, ?3)"}});
        !prepared) {
        return prepared;
    }
    put->bind(1, std::string_view(standing.source))
        .bind(2, std::span<const uint8_t>(standing.fingerprint))
        .bind(3, standing.taken_s);
    return run_writing(connection, *put);
}

}  // namespace apikeyd::snapshot_rows
