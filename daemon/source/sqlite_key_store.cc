#include "source/sqlite_key_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading keys";
constexpr std::string_view kDoingChanges = "reading what changed";
constexpr size_t kSeqAt = 8;
constexpr size_t kUidAt = 16;

uint64_t first_word(const std::array<uint8_t, 16>& uid) {
    uint64_t word = 0;
    std::memcpy(&word, uid.data(), sizeof word);
    return word;
}

}  // namespace

Fingerprint fingerprint_of(const Position& position) {
    Fingerprint fingerprint{};
    const uint64_t hidden = position.mark ^ first_word(position.uid);
    std::memcpy(fingerprint.data(), &hidden, sizeof hidden);
    for (size_t i = 0; i < 8; ++i) {
        fingerprint[kSeqAt + i] = static_cast<uint8_t>(position.seq >> (8 * (7 - i)));
    }
    std::copy(position.uid.begin(), position.uid.end(), fingerprint.begin() + kUidAt);
    return fingerprint;
}

Position position_of(const Fingerprint& fingerprint) {
    Position position;
    std::copy(fingerprint.begin() + kUidAt, fingerprint.end(), position.uid.begin());
    for (size_t i = 0; i < 8; ++i) {
        position.seq = position.seq << 8 | fingerprint[kSeqAt + i];
    }
    std::memcpy(&position.mark, fingerprint.data(), sizeof position.mark);
    position.mark ^= first_word(position.uid);
    return position;
}

Result<std::unique_ptr<SqliteKeyStore>> SqliteKeyStore::open(Result<Database> opened) {
    if (!opened) {
        return tl::unexpected(opened.error());
    }
    auto store = std::make_unique<SqliteKeyStore>();
    auto connection = std::make_unique<SqliteConnection>(*std::move(opened));
    store->database_ = &connection->database();
    auto keys = SqlKeyStore::open(std::move(connection), false);
    if (!keys) {
        return tl::unexpected(keys.error());
    }
    store->keys_ = *std::move(keys);
    const std::string between = std::string(kSelectKeySql) + " WHERE rowid BETWEEN ?1 AND ?2 ORDER BY rowid";
    // The newest number stands in sqlite_sequence, also after somebody emptied the log.
    if (Result<void> prepared = prepare(
            store->connection(), {{&store->read_position_,
                                   "SELECT uid, (SELECT seq FROM sqlite_sequence WHERE name = 'changes'), "
                                   "(SELECT mark FROM changes ORDER BY seq DESC LIMIT 1) FROM store"},
                                  {&store->keys_between_, between}});
        !prepared) {
        return tl::unexpected(prepared.error());
    }
    return store;
}

Result<Position> SqliteKeyStore::position() {
    const SqlResetGuard guard(*read_position_);
    if (read_position_->step() != SqlStep::kRow) {
        return keys_->failed(kDoing);
    }
    Position position;
    const std::span<const uint8_t> uid = read_position_->column_blob(0);
    if (uid.size() != position.uid.size()) {
        return fail(connection().named() + ": its table 'store' is damaged; restore a copy");
    }
    std::copy(uid.begin(), uid.end(), position.uid.begin());
    position.seq = static_cast<uint64_t>(read_position_->column_int(1));
    position.mark = static_cast<uint64_t>(read_position_->column_int(2));
    keys_->stands_at(fingerprint_of(position));
    return position;
}

Result<std::optional<ChangeLog>> SqliteKeyStore::log_between(const Position& since,
                                                             const Position& now) const {
    if (since.uid != now.uid || since.seq >= now.seq) {
        return std::nullopt;
    }
    const Result<SqlStatementPtr> prepared = connection().prepare(
        "SELECT seq, mark, kind, name, came, sha256, \"foreign\", old FROM changes WHERE seq >= ?1 "
        "ORDER BY seq");
    if (!prepared) {
        return tl::unexpected(prepared.error());
    }
    SqlStatement& rows = **prepared;
    ChangeLog log;
    uint64_t expected = std::max<uint64_t>(since.seq, 1);
    SqlStep step = rows.bind(1, static_cast<int64_t>(expected)).step();
    for (; step == SqlStep::kRow; step = rows.step(), ++expected) {
        const auto seq = static_cast<uint64_t>(rows.column_int(0));
        if (seq != expected ||
            (seq == since.seq && static_cast<uint64_t>(rows.column_int(1)) != since.mark)) {
            return std::nullopt;
        }
        if (seq > since.seq) {
            log.note(rows, 2);
        }
    }
    if (step == SqlStep::kFailed) {
        return keys_->failed(kDoingChanges);
    }
    return expected == now.seq + 1 ? std::optional(std::move(log)) : std::nullopt;
}

}  // namespace apikeyd
