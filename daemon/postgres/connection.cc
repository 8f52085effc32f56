#include "postgres/connection.h"

#include <cstdlib>
#include <utility>

#include "postgres/place.h"
#include "postgres/session.h"
#include "postgres/statement.h"

namespace apikeyd {

PostgresConnection::PostgresConnection(std::unique_ptr<PostgresSession> session)
    : session_(std::move(session)) {}

PostgresConnection::~PostgresConnection() = default;

Result<std::unique_ptr<PostgresConnection>> PostgresConnection::open(const std::string& place,
                                                                     const PostgresOptions& options) {
    if (Result<void> checked = check_postgres_place(place); !checked) {
        return tl::unexpected(checked.error());
    }
    const Result<PostgresSettings> settings = settings_of(place);
    if (!settings) {
        return tl::unexpected(settings.error());
    }
    auto session = std::make_unique<PostgresSession>(place, options);
    if (!session->connect(each_host(*settings))) {
        return tl::unexpected(session->last_error("connecting"));
    }
    return std::unique_ptr<PostgresConnection>(new PostgresConnection(std::move(session)));
}

Result<SqlStatementPtr> PostgresConnection::prepare(std::string_view sql) const {
    return make_statement(*session_, sql);
}

bool PostgresConnection::execute(const char* sql) const {
    return session_->execute(sql);
}

bool PostgresConnection::in_transaction() const {
    const PGTransactionStatusType status = PQtransactionStatus(session_->raw());
    return status == PQTRANS_INTRANS || status == PQTRANS_INERROR;
}

const SqlDialect& PostgresConnection::dialect() const {
    static constexpr SqlDialect kDialect = {
        .for_update = " FOR UPDATE",
        .scopes_before = "text_key(",
        .scopes_behind = ")",
        .list_before = "= ANY(ARRAY(SELECT value FROM json_array_elements_text((",
        .list_behind = ")::json)))",
    };
    return kDialect;
}

std::string PostgresConnection::named() const {
    return postgres_store_named(session_->place());
}

Error PostgresConnection::last_error(std::string_view doing) const {
    return session_->last_error(doing);
}

Result<void> PostgresConnection::copy_out(std::string_view copy_sql, const CopyRow& row,
                                          std::string_view doing) const {
    if (!session_->copy(std::string(copy_sql), row)) {
        return tl::unexpected(last_error(doing));
    }
    return {};
}

bool PostgresConnection::broken() const {
    return session_->is_broken();
}

int PostgresConnection::descriptor() const {
    return session_->is_broken() ? -1 : PQsocket(session_->raw());
}

bool PostgresConnection::take_notifications() const {
    return session_->take_notifications();
}

Result<bool> PostgresConnection::is_direct(std::string_view doing) const {
    const PqPtr<PGresult> result = session_->query("SELECT pg_backend_pid()", {});
    if (!result || PQntuples(result.get()) != 1) {
        return tl::unexpected(last_error(doing));
    }
    return std::strtol(PQgetvalue(result.get(), 0, 0), nullptr, 10) == PQbackendPID(session_->raw());
}

}  // namespace apikeyd
