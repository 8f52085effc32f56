#include "bench/peer_stores.h"

#if APIKEYD_BENCH_LMDB
#include <lmdb.h>
#endif
#include <sqlite3.h>

#include <algorithm>
#include <boost/version.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bench/temporary_directory.h"

namespace apikey::bench {
namespace {

using Loaded = std::vector<std::pair<std::string, uint64_t>>;

/// In the order of the tree: it is built faster, and its pages are full.
Loaded in_order(uint64_t keys, FoundBy by) {
    Loaded texts;
    texts.reserve(keys);
    for (uint64_t i = 0; i < keys; ++i) {
        texts.emplace_back(lookup_text(i, by), i);
    }
    std::sort(texts.begin(), texts.end());
    return texts;
}

}  // namespace

std::string peer_libraries() {
    std::string versions("Boost " BOOST_LIB_VERSION ", SQLite ");
    versions.append(sqlite3_libversion());
#if APIKEYD_BENCH_LMDB
    int major = 0;
    int minor = 0;
    int patch = 0;
    mdb_version(&major, &minor, &patch);
    versions.append(", LMDB ").append(std::to_string(major)).append(".").append(std::to_string(minor));
    versions.append(".").append(std::to_string(patch));
#endif
    return versions;
}

#if APIKEYD_BENCH_LMDB

namespace {

constexpr unsigned kLookupsEachRenewal = 16;
constexpr size_t kMapBytesEach = 512;  // address space, with plenty to spare; the file grows as it is filled
constexpr size_t kMapBytesMin = size_t{64} << 20;

void lmdb_check(int status, const char* what) {
    if (status != MDB_SUCCESS) {
        std::fprintf(stderr, "micro: LMDB: %s: %s\n", what, mdb_strerror(status));
        std::exit(1);
    }
}

MDB_env* lmdb_open(const std::string& path, uint64_t keys, unsigned flags) {
    MDB_env* env = nullptr;
    lmdb_check(mdb_env_create(&env), "create");
    lmdb_check(mdb_env_set_mapsize(env, std::max(kMapBytesMin, keys * kMapBytesEach)), "map size");
    lmdb_check(mdb_env_open(env, path.c_str(), flags | MDB_NOSUBDIR, 0600), "open");
    return env;
}

void lmdb_load(const std::string& path, const Loaded& texts) {
    MDB_env* env = lmdb_open(path, texts.size(), MDB_NOSYNC | MDB_WRITEMAP);
    MDB_txn* txn = nullptr;
    MDB_dbi dbi = 0;
    lmdb_check(mdb_txn_begin(env, nullptr, 0, &txn), "begin to write");
    lmdb_check(mdb_dbi_open(txn, nullptr, 0, &dbi), "open the database");
    for (const auto& [text, number] : texts) {
        Row row = row_of(number);
        MDB_val key{text.size(), const_cast<char*>(text.data())};
        MDB_val value{sizeof row, &row};
        lmdb_check(mdb_put(txn, dbi, &key, &value, MDB_APPEND), "put");
    }
    lmdb_check(mdb_txn_commit(txn), "commit");
    mdb_env_close(env);
}

}  // namespace

struct LmdbStore::Handles {
    MDB_env* env = nullptr;
    MDB_txn* txn = nullptr;
    MDB_dbi dbi = 0;
    unsigned lookups = 0;
};

LmdbStore::LmdbStore(uint64_t keys, FoundBy by) : handles_(std::make_unique<Handles>()) {
    const TemporaryDirectory directory;
    const std::string path = directory.path() + "/keys.lmdb";
    lmdb_load(path, in_order(keys, by));
    handles_->env = lmdb_open(path, keys, MDB_RDONLY | MDB_NOSYNC);
    lmdb_check(mdb_txn_begin(handles_->env, nullptr, MDB_RDONLY, &handles_->txn), "begin to read");
    lmdb_check(mdb_dbi_open(handles_->txn, nullptr, 0, &handles_->dbi), "open the database to read");
}

LmdbStore::~LmdbStore() {
    mdb_txn_abort(handles_->txn);
    mdb_env_close(handles_->env);
}

bool LmdbStore::find(std::string_view text, Row* row) {
    if (++handles_->lookups == kLookupsEachRenewal) {
        handles_->lookups = 0;
        mdb_txn_reset(handles_->txn);
        lmdb_check(mdb_txn_renew(handles_->txn), "renew");
    }
    MDB_val key{text.size(), const_cast<char*>(text.data())};
    MDB_val value;
    const int status = mdb_get(handles_->txn, handles_->dbi, &key, &value);
    if (status == MDB_NOTFOUND) {
        return false;
    }
    lmdb_check(status, "get");
    if (value.mv_size != sizeof *row) {
        lmdb_check(MDB_CORRUPTED, "get");
    }
    std::memcpy(row, value.mv_data, sizeof *row);
    return true;
}

#endif  // APIKEYD_BENCH_LMDB

namespace {

constexpr char kCreate[] =
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
    "CREATE TABLE keys (key BLOB PRIMARY KEY, expires_at INTEGER NOT NULL, owner INTEGER NOT NULL,"
    " state INTEGER NOT NULL) WITHOUT ROWID; BEGIN";
constexpr char kInsert[] = "INSERT INTO keys VALUES (?, ?, ?, ?)";
constexpr char kSelect[] = "SELECT expires_at, owner, state FROM keys WHERE key = ?";
/// The log and its index are opened by the first use, and have to have names then.
constexpr char kTouch[] =
    "UPDATE keys SET state = state WHERE key = x'00'; SELECT count(*) FROM sqlite_schema";
constexpr char kMapWhole[] = "PRAGMA mmap_size = 2147418112";

void sqlite_check(bool right, sqlite3* db, const char* what) {
    if (!right) {
        std::fprintf(stderr, "micro: SQLite: %s: %s\n", what, sqlite3_errmsg(db));
        std::exit(1);
    }
}

void sqlite_run(sqlite3* db, const char* sql) {
    sqlite_check(sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK, db, sql);
}

sqlite3* sqlite_open(const std::string& uri, int flags) {
    sqlite3* db = nullptr;
    const int status =
        sqlite3_open_v2(uri.c_str(), &db, flags | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, nullptr);
    sqlite_check(status == SQLITE_OK, db, "open");
    return db;
}

sqlite3_stmt* sqlite_prepare(sqlite3* db, const char* sql) {
    sqlite3_stmt* statement = nullptr;
    sqlite_check(sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr) == SQLITE_OK,
                 db, sql);
    return statement;
}

void sqlite_load(const std::string& uri, const Loaded& texts) {
    sqlite3* db = sqlite_open(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    sqlite_run(db, kCreate);
    sqlite3_stmt* insert = sqlite_prepare(db, kInsert);
    for (const auto& [text, number] : texts) {
        const Row row = row_of(number);
        sqlite3_bind_blob(insert, 1, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
        sqlite3_bind_int64(insert, 2, static_cast<sqlite3_int64>(row.expires_at));
        sqlite3_bind_int64(insert, 3, row.owner);
        sqlite3_bind_int64(insert, 4, row.state);
        sqlite_check(sqlite3_step(insert) == SQLITE_DONE, db, kInsert);
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
    sqlite_run(db, "COMMIT");
    sqlite_check(sqlite3_close(db) == SQLITE_OK, db, "close");
}

}  // namespace

struct SqliteStore::Handles {
    sqlite3* db = nullptr;
    sqlite3_stmt* select = nullptr;
};

SqliteStore::SqliteStore(uint64_t keys, FoundBy by, Sees sees) : handles_(std::make_unique<Handles>()) {
    const TemporaryDirectory directory;
    const std::string uri = "file:" + directory.path() + "/keys.sqlite";
    sqlite_load(uri, in_order(keys, by));
    if (sees == Sees::kChanges) {
        handles_->db = sqlite_open(uri, SQLITE_OPEN_READWRITE);
        sqlite_run(handles_->db, "PRAGMA journal_mode = WAL");
        sqlite_run(handles_->db, kTouch);
    } else {
        handles_->db = sqlite_open(uri + "?immutable=1", SQLITE_OPEN_READONLY);
    }
    sqlite_run(handles_->db, kMapWhole);
    handles_->select = sqlite_prepare(handles_->db, kSelect);
}

SqliteStore::~SqliteStore() {
    sqlite3_finalize(handles_->select);
    sqlite3_close(handles_->db);
}

bool SqliteStore::find(std::string_view text, Row* row) {
    sqlite3_stmt* select = handles_->select;
    sqlite3_bind_blob(select, 1, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
    const int status = sqlite3_step(select);
    if (status == SQLITE_ROW) {
        row->expires_at = static_cast<uint64_t>(sqlite3_column_int64(select, 0));
        row->owner = static_cast<uint32_t>(sqlite3_column_int64(select, 1));
        row->state = static_cast<uint32_t>(sqlite3_column_int64(select, 2));
    } else {
        sqlite_check(status == SQLITE_DONE, handles_->db, kSelect);
    }
    sqlite3_reset(select);
    return status == SQLITE_ROW;
}

}  // namespace apikey::bench
