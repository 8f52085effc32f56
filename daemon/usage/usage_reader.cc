#include "usage/usage_reader.h"

#include <utility>

#include "usage/database.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoingRead = "reading usage";

KeyTotal row_of(const Statement& statement) {
    return KeyTotal{std::string(statement.column_text(0)), static_cast<uint64_t>(statement.column_int(1)),
                    static_cast<uint64_t>(statement.column_int(2)), statement.column_int(3)};
}

}  // namespace

struct UsageReader::Impl {
    Database database;  // before the statements: they are finalized first
    Statement all;
    Statement one;
    Statement codes;
};

UsageReader::UsageReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UsageReader::UsageReader(UsageReader&&) noexcept = default;
UsageReader& UsageReader::operator=(UsageReader&&) noexcept = default;
UsageReader::~UsageReader() = default;

Result<UsageReader> UsageReader::open(const std::string& path) {
    Result<Database> database = Database::open_read_only(path);
    if (!database) {
        return tl::unexpected(std::move(database.error()));
    }
    auto impl = std::make_unique<Impl>(Impl{std::move(*database), {}, {}, {}});
    const std::pair<Statement*, std::string_view> wanted[] = {
        {&impl->all, "SELECT key_id, allowed, denied, last_used_s FROM totals ORDER BY key_id"},
        {&impl->one, "SELECT key_id, allowed, denied, last_used_s FROM totals WHERE key_id = ?1"},
        {&impl->codes, "SELECT code, total FROM codes ORDER BY code"},
    };
    for (const auto& [statement, sql] : wanted) {
        Result<Statement> prepared = impl->database.prepare(sql);
        if (!prepared) {
            return tl::unexpected(std::move(prepared.error()));
        }
        *statement = std::move(*prepared);
    }
    return UsageReader(std::move(impl));
}

Result<void> UsageReader::for_each_total(const std::function<void(const KeyTotal&)>& callback) {
    const ResetGuard guard(impl_->all);
    int rc = impl_->all.step();
    for (; rc == SQLITE_ROW; rc = impl_->all.step()) {
        callback(row_of(impl_->all));
    }
    if (rc != SQLITE_DONE) {
        return tl::unexpected(impl_->database.last_error(kDoingRead));
    }
    return {};
}

Result<std::optional<KeyTotal>> UsageReader::total(std::string_view key_id) {
    const ResetGuard guard(impl_->one);
    const int rc = impl_->one.bind(1, key_id).step();
    if (rc == SQLITE_ROW) {
        return row_of(impl_->one);
    }
    if (rc != SQLITE_DONE) {
        return tl::unexpected(impl_->database.last_error(kDoingRead));
    }
    return std::nullopt;
}

Result<std::vector<CodeCount>> UsageReader::codes() {
    std::vector<CodeCount> codes;
    const ResetGuard guard(impl_->codes);
    int rc = impl_->codes.step();
    for (; rc == SQLITE_ROW; rc = impl_->codes.step()) {
        codes.push_back({static_cast<uint8_t>(impl_->codes.column_int(0)),
                         static_cast<uint64_t>(impl_->codes.column_int(1))});
    }
    if (rc != SQLITE_DONE) {
        return tl::unexpected(impl_->database.last_error(kDoingRead));
    }
    return codes;
}

}  // namespace apikeyd
