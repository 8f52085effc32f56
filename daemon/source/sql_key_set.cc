#include "source/sql_key_set.h"

#include <algorithm>
#include <set>
#include <utility>

#include "shm/scope_name.h"
#include "source/json_text.h"
#include "source/yaml_events.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "changing it";
constexpr std::string_view kKeyValues = "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

std::string keys_of(int64_t count, const std::string& first) {
    return std::to_string(count) + " keys, the first " + first;
}

Result<void> used_by(const std::string& what, const std::string& users, const char* advice) {
    return fail(what + ": used by " + users + " (" + advice + ")");
}

/// Of the first two rows of an environment one is another key's. Written so that a planner has no choice but
/// the environments' index, whatever it takes them to be like.
constexpr std::string_view kAnyOtherSql =
    "SELECT 1 FROM (SELECT id, environment FROM keys WHERE environment >= ?1 ORDER BY environment LIMIT 2) "
    "AS k "
    "WHERE environment = ?1 AND id <> ?2";

}  // namespace

Result<SqlKeySet> SqlKeySet::prepare(SqlKeyStore& store) {
    SqlKeySet set(store);
    const std::string insert =
        "INSERT INTO keys(id, sha256, state, expires, plan, limits, addresses, environment, owner, name, "
        "created, "
        "\"foreign\", scopes, metadata) " +
        std::string(kKeyValues);
    const Result<void> prepared = apikeyd::prepare(
        *store.connection,
        {{&set.insert_key_, insert},
         {&set.update_key_,
          "UPDATE keys SET sha256 = ?2, state = ?3, expires = ?4, plan = ?5, limits = ?6, addresses = ?7, "
          "environment = ?8, owner = ?9, name = ?10, created = ?11, \"foreign\" = ?12, scopes = ?13, "
          "metadata = ?14 WHERE id = ?1"},
         {&set.erase_key_, "DELETE FROM keys WHERE id = ?1"},
         {&set.digest_owner_, "SELECT id FROM keys WHERE sha256 = ?1 AND id <> ?2"},
         {&set.any_environment_, kAnyOtherSql}});
    if (!prepared) {
        return tl::unexpected(prepared.error());
    }
    return set;
}

Result<void> SqlKeySet::run(SqlStatement& statement, const std::string& what) {
    const SqlResetGuard guard(statement);
    if (statement.step() == SqlStep::kFailed) {
        return store_->failed(std::string(kDoing) + ": " + what);
    }
    rows_written_ += statement.rows_changed();
    return {};
}

Result<void> SqlKeySet::run(std::string_view sql, const std::string& what,
                            std::initializer_list<KeyColumns::Text> names) {
    Result<SqlStatementPtr> statement = store_->connection->prepare(sql);
    if (!statement) {
        return tl::unexpected(statement.error());
    }
    int index = 0;
    for (const KeyColumns::Text& name : names) {
        ++index;
        name ? (*statement)->bind(index, *name) : (*statement)->bind(index, nullptr);
    }
    const Result<void> done = run(**statement, what);
    policies_changed();
    return done;
}

void SqlKeySet::policies_changed() {
    policies_.reset();
    store_->forget();
}

Result<std::optional<KeyRow>> SqlKeySet::key(std::string_view id) {
    return store_->key(id);
}

Result<void> SqlKeySet::check_environment(const KeyRow& row) {
    if (row.environment.empty()) {
        return {};
    }
    {
        const SqlResetGuard guard(*any_environment_);
        const SqlStep step = any_environment_->bind(1, row.environment).bind(2, row.id).step();
        if (step != SqlStep::kDone) {
            return step == SqlStep::kRow ? Result<void>() : Result<void>(store_->failed(kDoing));
        }
    }
    size_t others = 0;
    const Result<void> read = store_->each_environment([&](std::string_view) { ++others; });
    if (!read) {
        return read;
    }
    // The key's present one may be among them, though it goes.
    if (others < kEnvironmentsMax) {
        return {};
    }
    return fail("key " + row.id + ": environment: " + yaml_quote(row.environment) +
                " is one too many (want at most " + std::to_string(kEnvironmentsMax) +
                " different ones in a key set)");
}

Result<size_t> SqlKeySet::scope_names(const std::vector<std::string>& granted) {
    branches_.clear();
    const auto note = [&](const std::vector<std::string>& scopes) {
        std::copy_if(scopes.begin(), scopes.end(), std::inserter(branches_, branches_.end()),
                     apikey::shm::is_branch);
    };
    note(granted);
    const Result<void> read = store_->each_scopes([&](std::string_view scopes) {
        if (const auto known = granted_of(scopes)) {
            note(*known);
        }
    });
    if (!read) {
        return tl::unexpected(read.error());
    }
    return store_->policies.scopes().size() + branches_.size();
}

/// A branch that some key has already needs no room of its own.
Result<void> SqlKeySet::check_branches(const KeyRow& row) {
    const std::vector<std::string>& granted = terms_of(row).scopes;
    const bool known = std::all_of(granted.begin(), granted.end(), [&](const std::string& scope) {
        return !apikey::shm::is_branch(scope) || branches_.contains(scope);
    });
    if (known) {
        return {};
    }
    const Result<size_t> names = scope_names(granted);
    if (!names) {
        return tl::unexpected(names.error());
    }
    if (*names > kScopesMax) {
        branches_.clear();
        return fail("key " + row.id + ": scopes: " + std::to_string(*names) +
                    " names and branches in the key set (want at most " + std::to_string(kScopesMax) + ")");
    }
    return {};
}

Result<void> SqlKeySet::check_room(std::optional<int64_t>& rows, std::string_view count_sql, size_t rows_max,
                                   const std::string& what, const char* of) {
    if (!rows) {
        const Result<Users> counted = users(count_sql, "");
        if (!counted) {
            return tl::unexpected(counted.error());
        }
        rows = counted->count;
    }
    if (static_cast<size_t>(*rows) >= rows_max) {
        return fail(what + ": more than " + std::to_string(rows_max) + " " + of + " (the limit)");
    }
    ++*rows;
    return {};
}

/// What reading it back would say, and what only the whole set shows.
Result<void> SqlKeySet::check(const KeyRow& row, const KeyColumns& columns) {
    const std::string what = "key " + row.id + ": ";
    const auto read = store_->reader.read(columns);
    if (const Result<void> policies = store_->policies_read(); !policies) {
        return policies;
    }
    if (!read) {
        return fail(what + read.error());
    }
    if (*read != row) {
        return fail(what + "cannot be written to a key store");
    }
    if (Result<void> fits = check_environment(row); !fits) {
        return fits;
    }
    if (Result<void> fits = check_branches(row); !fits) {
        return fits;
    }
    const SqlResetGuard guard(*digest_owner_);
    const SqlStep step = digest_owner_->bind(1, std::span<const uint8_t>(row.digest)).bind(2, row.id).step();
    if (step == SqlStep::kRow) {
        return fail(what + "sha256: the same digest as key " + std::string(digest_owner_->column_text(0)) +
                    " (want each key once)");
    }
    return step == SqlStep::kDone ? Result<void>() : Result<void>(store_->failed(kDoing));
}

Result<void> SqlKeySet::upsert(const KeyRow& wanted) {
    KeyRow row = wanted;
    const std::string what = "key " + row.id;
    if (!row.metadata.empty()) {
        auto compact = compact_metadata(row.metadata);
        if (!compact) {
            return fail(what + ": metadata: " + compact.error().message);
        }
        row.metadata = *std::move(compact);
    }
    const KeyText text(row);
    bool same = false;
    bool was_revoked = false;
    const Result<bool> there = store_->look_up(row.id, [&](const KeyColumns& columns) {
        KeyColumns stored = columns;
        stored.rowid = text.columns().rowid;
        was_revoked = stored.state == key_state_name(KeyState::kRevoked);
        same = stored == text.columns();
        if (!same) {  // what means the same may be written in another way
            const auto read = store_->reader.read(columns);
            same = read && *read == row;
        }
    });
    if (!there) {
        return tl::unexpected(there.error());
    }
    if (same) {
        return {};
    }
    if (was_revoked && row.state != KeyState::kRevoked) {
        return fail(what + ": state: a revoked key stays revoked (issue a new key in its place)");
    }
    if (Result<void> fits = check(row, text.columns()); !fits) {
        return fits;
    }
    SqlStatement& statement = *there ? *update_key_ : *insert_key_;
    bind_key(statement, text.columns());
    return run(statement, what);
}

Result<bool> SqlKeySet::erase(std::string_view id) {
    const int64_t written = rows_written_;
    erase_key_->bind(1, id);
    if (const Result<void> done = run(*erase_key_, "key " + std::string(id)); !done) {
        return tl::unexpected(done.error());
    }
    return rows_written_ > written;
}

const PolicySet& SqlKeySet::policies() const {
    if (!policies_) {
        policies_ = store_->policies.load([](const auto&, const auto&, const auto&) {});
        if (Result<void> read = store_->policies_read(); !read) {
            policies_read_ = read;
        }
    }
    return *policies_;
}

Result<bool> SqlKeySet::is_there(std::string_view sql, std::string_view name) const {
    const Result<SqlStatementPtr> statement = store_->connection->prepare(sql);
    if (!statement) {
        return tl::unexpected(statement.error());
    }
    const SqlStep step = (*statement)->bind(1, name).step();
    if (step == SqlStep::kFailed) {
        return store_->failed(kDoing);
    }
    return step == SqlStep::kRow;
}

/// `sql` orders by +rowid: those that match are sorted, and no planner walks along all rows to the first of
/// them.
Result<SqlKeySet::Users> SqlKeySet::users(std::string_view sql, std::string_view name) const {
    const Result<SqlStatementPtr> statement = store_->connection->prepare(sql);
    if (!statement) {
        return tl::unexpected(statement.error());
    }
    if ((*statement)->bind(1, name).step() != SqlStep::kRow) {
        return store_->failed(kDoing);
    }
    return Users{(*statement)->column_int(0), std::string((*statement)->column_text(1))};
}

/// Whether all keys that have this plan can have it like this.
Result<void> SqlKeySet::check_terms_with(const PlanRow& plan) {
    const Result<SqlStatementPtr> prepared =
        store_->connection->prepare(std::string(kSelectKeySql) + " WHERE plan = ?1 AND limits IS NOT NULL");
    if (!prepared) {
        return tl::unexpected(prepared.error());
    }
    SqlStatement& keys = **prepared;
    SqlStep step = keys.bind(1, plan.name).step();
    for (; step == SqlStep::kRow; step = keys.step()) {
        const auto row = store_->reader.read(key_columns(keys));
        const auto fault = row ? terms_fault(terms_of(*row), &plan, store_->policies.scopes()) : std::nullopt;
        if (fault) {
            return fail("plan " + plan.name + ": key " + row->id + ": " + *fault);
        }
    }
    return step == SqlStep::kDone ? Result<void>() : Result<void>(store_->failed(kDoing));
}

Result<void> SqlKeySet::upsert_plan(const PlanRow& plan) {
    const std::string what = "plan " + plan.name;
    const std::string limits = format_limits(plan.limits);
    const KeyColumns::Text column = limits.empty() ? std::nullopt : KeyColumns::Text(limits);
    const auto read = plan_of(plan.name, column);
    if (!read) {
        return fail(what + ": " + read.error());
    }
    if (*read != plan) {
        return fail(what + ": cannot be written to a key store");
    }
    const PlanRow* present = store_->policies.plan(plan.name);
    if (present != nullptr && *present == plan) {
        return store_->policies_read();
    }
    if (Result<void> fits = check_terms_with(plan); !fits) {
        return fits;
    }
    const Result<bool> there = is_there("SELECT 1 FROM plans WHERE name = ?1", plan.name);
    if (!there) {
        return tl::unexpected(there.error());
    }
    if (*there) {
        return run("UPDATE plans SET limits = ?2 WHERE name = ?1", what, {plan.name, column});
    }
    if (Result<void> fits =
            check_room(plans_, "SELECT count(*), '' FROM plans WHERE name > ?1", kPlansMax, what, "plans");
        !fits) {
        return fits;
    }
    return run("INSERT INTO plans(name, limits) VALUES(?1, ?2)", what, {plan.name, column});
}

Result<void> SqlKeySet::upsert_owner(const OwnerRow& owner) {
    const std::string what = "owner " + yaml_quote(owner.name);
    if (const auto fault = owner_name_fault(owner.name)) {
        return fail(what + ": name: " + *fault);
    }
    const KeyColumns::Text plan = owner.plan.empty() ? std::nullopt : KeyColumns::Text(owner.plan);
    const PlanRow* shared = plan ? store_->policies.plan(owner.plan) : nullptr;
    if (const auto fault = terms_fault({.plan = owner.plan}, shared, {})) {
        return fail(what + ": " + *fault);
    }
    const Result<bool> there = is_there("SELECT 1 FROM owners WHERE name = ?1", owner.name);
    if (!there) {
        return tl::unexpected(there.error());
    }
    if (*there) {
        return run("UPDATE owners SET plan = ?2 WHERE name = ?1 AND plan IS DISTINCT FROM ?2", what,
                   {owner.name, plan});
    }
    if (Result<void> fits = check_room(owners_, "SELECT count(*), '' FROM owners WHERE name > ?1", kOwnersMax,
                                       what, "owners");
        !fits) {
        return fits;
    }
    return run("INSERT INTO owners(name, plan) VALUES(?1, ?2)", what, {owner.name, plan});
}

Result<void> SqlKeySet::add_scope(const std::string& scope) {
    const std::string what = "scope " + scope;
    const auto fault = scope_fault(scope);
    if (fault || apikey::shm::is_branch(scope)) {
        return fail("scopes: " + yaml_quote(scope) + " is no scope (" +
                    fault.value_or("a branch is granted, not defined") + ")");
    }
    const Result<size_t> names = scope_names({});
    const Result<bool> there = is_there("SELECT 1 FROM scopes WHERE name = ?1", scope);
    if (!names || !there) {
        return tl::unexpected(!names ? names.error() : there.error());
    }
    if (*there) {
        return fail(what + ": stands already (want it once)");
    }
    if (*names + 1 > kScopesMax) {
        return fail(what + ": " + std::to_string(*names + 1) +
                    " names and branches in the key set (want at most " + std::to_string(kScopesMax) + ")");
    }
    return run("INSERT INTO scopes(name) VALUES(?1)", what, {scope});
}

Result<void> SqlKeySet::erase_plan(const std::string& name) {
    const std::string what = "plan " + name;
    const Result<Users> keys = users(
        "SELECT count(*), (SELECT id FROM keys WHERE plan = ?1 ORDER BY +rowid LIMIT 1) FROM keys WHERE plan "
        "= ?1",
        name);
    const Result<Users> owners = users(
        "SELECT count(*), (SELECT name FROM owners WHERE plan = ?1 ORDER BY +rowid LIMIT 1) FROM owners "
        "WHERE plan = ?1",
        name);
    if (!keys || !owners) {
        return tl::unexpected(!keys ? keys.error() : owners.error());
    }
    std::string text = keys->count == 0 ? "" : keys_of(keys->count, keys->first);
    if (owners->count != 0) {
        text += (text.empty() ? "" : ", and ") + std::to_string(owners->count) + " owners, the first " +
                yaml_quote(owners->first);
    }
    if (!text.empty()) {
        return used_by(what, text, "give them another plan first");
    }
    plans_.reset();
    return run("DELETE FROM plans WHERE name = ?1", what, {name});
}

Result<void> SqlKeySet::erase_owner(const std::string& name) {
    const std::string what = "owner " + yaml_quote(name);
    const Result<Users> keys = users(
        "SELECT count(*), (SELECT id FROM keys WHERE owner = ?1 AND owner <> '' AND state <> 'revoked' "
        "ORDER BY +rowid LIMIT 1) FROM keys WHERE owner = ?1 AND owner <> '' AND state <> 'revoked'",
        name);
    if (!keys) {
        return tl::unexpected(keys.error());
    }
    if (keys->count != 0) {
        return used_by(what, keys_of(keys->count, keys->first),
                       "revoke them or give them another owner first");
    }
    owners_.reset();
    return run("DELETE FROM owners WHERE name = ?1", what, {name});
}

Result<void> SqlKeySet::erase_scope(const std::string& name) {
    const std::string what = "scope " + name;
    std::vector<std::string> left = store_->policies.scopes();
    std::erase(left, name);
    std::vector<std::string> users_of;
    const Result<void> read = store_->each_scopes([&](std::string_view scopes) {
        const auto granted = granted_of(scopes);
        const bool covers =
            granted && std::any_of(granted->begin(), granted->end(), [&](const std::string& one) {
                return apikey::shm::scope_covers(one, name);
            });
        if (covers && terms_fault({.scopes = *granted}, nullptr, left)) {
            users_of.emplace_back(scopes);
        }
    });
    if (!read) {
        return read;
    }
    Users all;
    const std::string same = store_->scopes_indexed("scopes") + " = " + store_->scopes_indexed("?1");
    for (const std::string& scopes : users_of) {
        const Result<Users> some = users("SELECT count(*), (SELECT id FROM keys WHERE " + same +
                                             " ORDER BY +rowid LIMIT 1) FROM keys WHERE " + same,
                                         scopes);
        if (!some) {
            return tl::unexpected(some.error());
        }
        all.first = all.count == 0 ? some->first : all.first;
        all.count += some->count;
    }
    if (all.count != 0) {
        return used_by(what, keys_of(all.count, all.first), "grant them others first");
    }
    return run("DELETE FROM scopes WHERE name = ?1", what, {name});
}

}  // namespace apikeyd
