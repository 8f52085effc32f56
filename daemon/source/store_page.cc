#include "source/store_page.h"

#include <algorithm>
#include <vector>

#include "source/postgres_store.h"
#include "source/source.h"
#include "source/sqlite_key_store.h"
#include "source/sqlite_schema.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading keys";

Result<void> visit_sqlite(const std::string& path, std::string_view after,
                          const std::function<bool(const KeyRow& row)>& visit) {
    const auto opened = SqliteKeyStore::open(Database::open_read_only(kKeyStore, path));
    if (!opened) {
        return tl::unexpected(opened.error());
    }
    SqlKeyStore& store = (*opened)->keys();
    const Result<SqlTransaction> transaction = SqlTransaction::begin(*store.connection, "BEGIN", kDoing);
    const Result<SqlStatementPtr> prepared =
        store.connection->prepare(std::string(kSelectKeySql) + " WHERE id > ?1 ORDER BY id");
    if (!transaction || !prepared) {
        return tl::unexpected(transaction ? prepared.error() : transaction.error());
    }
    SqlStatement& rows = **prepared;
    SqlStep step = rows.bind(1, after).step();
    for (; step == SqlStep::kRow; step = rows.step()) {
        const auto row = store.reader.read(key_columns(rows));
        if (row && !visit(*row)) {
            return store.policies_read();
        }
    }
    return step == SqlStep::kDone ? store.policies_read() : Result<void>(store.failed(kDoing));
}

Result<void> visit_loaded(const StoreName& store, std::string_view after,
                          const std::function<bool(const KeyRow& row)>& visit) {
    std::vector<KeyRow> rows;
    const auto content = make_source(store)->load(std::nullopt, [&](KeyRow row) {
        if (row.id > after) {
            rows.push_back(std::move(row));
        }
    });
    if (!content) {
        return tl::unexpected(content.error());
    }
    std::sort(rows.begin(), rows.end(), [](const KeyRow& a, const KeyRow& b) { return a.id < b.id; });
    for (auto row = rows.begin(); row != rows.end() && visit(*row);) {
        ++row;
    }
    return {};
}

}  // namespace

Result<void> visit_keys(const StoreName& store, std::string_view after,
                        const std::function<bool(const KeyRow& row)>& visit) {
    switch (store.kind) {
        case StoreKind::kYaml:
            return visit_loaded(store, after, visit);
        case StoreKind::kSqlite:
            return visit_sqlite(store.place, after, visit);
        case StoreKind::kPostgres:
            return PostgresStore(store.place).visit_keys(after, visit);
    }
    return fail("no such store");
}

}  // namespace apikeyd
