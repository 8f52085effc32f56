#include "source/sql_key_store.h"

#include <algorithm>
#include <utility>

#include "source/json_text.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading keys";
/// Asked for in one statement.
constexpr size_t kLookedUpMax = 512;

}  // namespace

Result<std::unique_ptr<SqlKeyStore>> SqlKeyStore::open(std::unique_ptr<SqlConnection> opened,
                                                       bool for_change) {
    auto store = std::make_unique<SqlKeyStore>(std::move(opened));
    const SqlDialect& dialect = store->connection->dialect();
    const std::string select(kSelectKeySql);
    const std::string one =
        select + " WHERE id = ?1" + std::string(for_change ? dialect.for_update : std::string_view());
    const std::string some =
        select + " WHERE id " + std::string(dialect.list_before) + "?1" + std::string(dialect.list_behind);
    const std::string column = store->scopes_indexed("scopes");
    const std::string scopes = "SELECT scopes FROM keys WHERE " + column + " > " +
                               store->scopes_indexed("?1") + " ORDER BY " + column + " LIMIT 1";
    Result<void> prepared =
        prepare(*store->connection,
                {{&store->one_key_, one},
                 {&store->some_keys_, some},
                 {&store->next_scopes_, scopes},
                 {&store->next_environment_,
                  "SELECT environment FROM keys WHERE environment > ?1 ORDER BY environment LIMIT 1"}});
    if (prepared) {
        prepared = store->policies.prepare(*store->connection);
    }
    return prepared ? Result<std::unique_ptr<SqlKeyStore>>(std::move(store))
                    : tl::unexpected(prepared.error());
}

std::string SqlKeyStore::scopes_indexed(std::string_view text) const {
    const SqlDialect& dialect = connection->dialect();
    return std::string(dialect.scopes_before).append(text).append(dialect.scopes_behind);
}

tl::unexpected<Error> SqlKeyStore::failed(std::string_view doing) const {
    return tl::unexpected(connection->last_error(doing));
}

void SqlKeyStore::stands_at(const Fingerprint& position) {
    if (policies_at_ != position) {
        forget();
        policies_at_ = position;
    }
}

Result<bool> SqlKeyStore::look_up(std::string_view id, const std::function<void(const KeyColumns&)>& look) {
    const SqlResetGuard guard(*one_key_);
    const SqlStep step = one_key_->bind(1, id).step();
    if (step == SqlStep::kFailed) {
        return failed(kDoing);
    }
    if (step == SqlStep::kRow) {
        look(key_columns(*one_key_));
    }
    return step == SqlStep::kRow;
}

Result<void> SqlKeyStore::look_up(const std::vector<std::string>& ids,
                                  const std::function<void(const KeyColumns&)>& look) {
    for (size_t first = 0; first < ids.size(); first += kLookedUpMax) {
        const auto begin = ids.begin() + static_cast<ptrdiff_t>(first);
        const auto end = begin + static_cast<ptrdiff_t>(std::min(kLookedUpMax, ids.size() - first));
        const std::string list = format_word_list({begin, end});
        const SqlResetGuard guard(*some_keys_);
        SqlStep step = some_keys_->bind(1, list).step();
        for (; step == SqlStep::kRow; step = some_keys_->step()) {
            look(key_columns(*some_keys_));
        }
        if (step == SqlStep::kFailed) {
            return failed(kDoing);
        }
    }
    return {};
}

Result<std::optional<KeyRow>> SqlKeyStore::key(std::string_view id) {
    std::optional<KeyRow> row;
    std::string fault;
    const Result<bool> found = look_up(id, [&](const KeyColumns& columns) {
        if (auto read = reader.read(columns)) {
            row = *std::move(read);
        } else {
            fault = read.error();
        }
    });
    if (!found) {
        return tl::unexpected(found.error());
    }
    if (const Result<void> read = policies_read(); !read) {
        return tl::unexpected(read.error());
    }
    if (!fault.empty()) {
        return fail(connection->named() + ": keys, id " + std::string(id) + ": " + fault);
    }
    return row;
}

Result<void> SqlKeyStore::each(SqlStatement& next, const std::function<void(std::string_view)>& visit) {
    for (std::string last;;) {
        std::string value;
        {
            const SqlResetGuard guard(next);
            const SqlStep step = next.bind(1, last).step();
            if (step == SqlStep::kFailed) {
                return failed(kDoing);
            }
            if (step == SqlStep::kDone) {
                return {};
            }
            value = next.column_text(0);
        }
        visit(value);
        last = std::move(value);
    }
}

Result<void> SqlKeyStore::each_scopes(const std::function<void(std::string_view)>& visit) {
    return each(*next_scopes_, visit);
}

Result<void> SqlKeyStore::each_environment(const std::function<void(std::string_view)>& visit) {
    return each(*next_environment_, visit);
}

Result<void> SqlKeyStore::policies_read() {
    auto error = policies.take_error();
    if (error) {
        forget();  // what was read by halves
        return tl::unexpected(*std::move(error));
    }
    return {};
}

void SqlKeyStore::forget() {
    policies.forget();
    reader.forget();
    policies_at_.reset();
}

}  // namespace apikeyd
