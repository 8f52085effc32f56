#include "source/store_page.h"

#include <algorithm>
#include <vector>

#include "source/source.h"
#include "source/sqlite_connection.h"
#include "source/sqlite_schema.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading keys";

Result<void> visit_sqlite(const std::string& path, std::string_view after,
                          const std::function<bool(const KeyRow& row)>& visit) {
    const auto opened = KeyStoreConnection::open(Database::open_read_only(kKeyStore, path));
    if (!opened) {
        return tl::unexpected(opened.error());
    }
    KeyStoreConnection& connection = **opened;
    const Result<Transaction> transaction = Transaction::begin(connection.database, "BEGIN", kDoing);
    Result<Statement> rows =
        connection.database.prepare(std::string(kSelectKeySql) + " WHERE id > ?1 ORDER BY id");
    if (!transaction || !rows) {
        return tl::unexpected(transaction ? rows.error() : transaction.error());
    }
    int rc = rows->bind(1, after).step();
    for (; rc == SQLITE_ROW; rc = rows->step()) {
        const auto row = connection.reader.read(key_columns(*rows));
        if (row && !visit(*row)) {
            return connection.policies_read();
        }
    }
    return rc == SQLITE_DONE ? connection.policies_read() : Result<void>(connection.failed(kDoing));
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
    return store.kind == StoreKind::kSqlite ? visit_sqlite(store.place, after, visit)
                                            : visit_loaded(store, after, visit);
}

}  // namespace apikeyd
