#include "source/sqlite_connection.h"

#include <algorithm>
#include <cstring>

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading keys";
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

Result<std::unique_ptr<KeyStoreConnection>> KeyStoreConnection::open(Result<Database> opened) {
    if (!opened) {
        return tl::unexpected(opened.error());
    }
    auto connection = std::make_unique<KeyStoreConnection>(*std::move(opened));
    const std::string select(kSelectKeySql);
    const std::string between = select + " WHERE rowid BETWEEN ?1 AND ?2 ORDER BY rowid";
    const std::string one = select + " WHERE id = ?1";
    // The newest number stands in sqlite_sequence, also after somebody emptied the log.
    if (Result<void> prepared = connection->database.prepare(
            {{&connection->read_position,
              "SELECT uid, (SELECT seq FROM sqlite_sequence WHERE name = 'changes'), "
              "(SELECT mark FROM changes ORDER BY seq DESC LIMIT 1) FROM store"},
             {&connection->keys_between, between},
             {&connection->one_key, one},
             {&connection->next_scopes, "SELECT scopes FROM keys WHERE scopes > ?1 ORDER BY scopes LIMIT 1"},
             {&connection->next_environment,
              "SELECT environment FROM keys WHERE environment > ?1 ORDER BY environment LIMIT 1"}});
        !prepared) {
        return tl::unexpected(prepared.error());
    }
    auto policies = PolicyRows::prepare(connection->database);
    if (!policies) {
        return tl::unexpected(policies.error());
    }
    connection->policies = *std::move(policies);
    return connection;
}

tl::unexpected<Error> KeyStoreConnection::failed(std::string_view doing) const {
    return tl::unexpected(database.last_error(doing));
}

Result<Position> KeyStoreConnection::position() {
    const ResetGuard guard(read_position);
    if (read_position.step() != SQLITE_ROW) {
        return failed(kDoing);
    }
    Position position;
    const std::span<const uint8_t> uid = read_position.column_blob(0);
    if (uid.size() != position.uid.size()) {
        return fail(database.named() + ": its table 'store' is damaged; restore a copy");
    }
    std::copy(uid.begin(), uid.end(), position.uid.begin());
    position.seq = static_cast<uint64_t>(read_position.column_int(1));
    position.mark = static_cast<uint64_t>(read_position.column_int(2));
    if (policies_at != position) {
        forget();
        policies_at = position;
    }
    return position;
}

Result<bool> KeyStoreConnection::look_up(std::string_view id,
                                         const std::function<void(const KeyColumns&)>& look) {
    const ResetGuard guard(one_key);
    const int rc = one_key.bind(1, id).step();
    if (rc == SQLITE_ROW) {
        look(key_columns(one_key));
    } else if (rc != SQLITE_DONE) {
        return failed(kDoing);
    }
    return rc == SQLITE_ROW;
}

Result<std::optional<KeyRow>> KeyStoreConnection::key(std::string_view id) {
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
        return fail(database.named() + ": keys, id " + std::string(id) + ": " + fault);
    }
    return row;
}

Result<void> KeyStoreConnection::each(Statement& next, const std::function<void(std::string_view)>& visit) {
    for (std::string last;;) {
        std::string value;
        {
            const ResetGuard guard(next);
            const int rc = next.bind(1, last).step();
            if (rc == SQLITE_DONE) {
                return {};
            }
            if (rc != SQLITE_ROW) {
                return failed(kDoing);
            }
            value = next.column_text(0);
        }
        visit(value);
        last = std::move(value);
    }
}

Result<void> KeyStoreConnection::each_scopes(const std::function<void(std::string_view)>& visit) {
    return each(next_scopes, visit);
}

Result<void> KeyStoreConnection::each_environment(const std::function<void(std::string_view)>& visit) {
    return each(next_environment, visit);
}

Result<void> KeyStoreConnection::policies_read() {
    auto error = policies.take_error();
    if (error) {
        forget();  // what was read by halves
        return tl::unexpected(*std::move(error));
    }
    return {};
}

void KeyStoreConnection::forget() {
    policies.forget();
    reader.forget();
    policies_at.reset();
}

Result<Transaction> Transaction::begin(const Database& database, const char* how, std::string_view doing) {
    if (database.execute(how) != SQLITE_OK) {
        return tl::unexpected(database.last_error(doing));
    }
    return Transaction(database);
}

Result<void> Transaction::commit(std::string_view doing) {
    if (database_->execute("COMMIT") != SQLITE_OK) {
        Error error = database_->last_error(doing);
        roll_back();
        return tl::unexpected(std::move(error));
    }
    database_ = nullptr;
    return {};
}

void Transaction::roll_back() {
    if (database_ != nullptr && database_->in_transaction()) {
        database_->execute("ROLLBACK");
    }
    database_ = nullptr;
}

}  // namespace apikeyd
