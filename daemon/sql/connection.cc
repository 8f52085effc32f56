#include "sql/connection.h"

namespace apikeyd {

Result<void> prepare(const SqlConnection& connection,
                     std::initializer_list<std::pair<SqlStatementPtr*, std::string_view>> wanted) {
    for (const auto& [statement, sql] : wanted) {
        Result<SqlStatementPtr> prepared = connection.prepare(sql);
        if (!prepared) {
            return tl::unexpected(std::move(prepared.error()));
        }
        *statement = *std::move(prepared);
    }
    return {};
}

Result<SqlTransaction> SqlTransaction::begin(const SqlConnection& connection, const char* how,
                                             std::string_view doing) {
    SqlTransaction transaction(connection);
    if (!connection.execute(how)) {
        Error error = connection.last_error(doing);
        transaction.roll_back();  // of several statements the first may have begun one
        return tl::unexpected(std::move(error));
    }
    return transaction;
}

Result<void> SqlTransaction::commit(std::string_view doing) {
    if (!connection_->execute("COMMIT")) {
        Error error = connection_->last_error(doing);
        roll_back();
        return tl::unexpected(std::move(error));
    }
    connection_ = nullptr;
    return {};
}

void SqlTransaction::roll_back() {
    if (connection_ != nullptr && connection_->in_transaction()) {
        connection_->execute("ROLLBACK");
    }
    connection_ = nullptr;
}

}  // namespace apikeyd
