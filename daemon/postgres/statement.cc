#include "postgres/statement.h"

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace apikeyd {

namespace {

/// A part of a statement's text, and the parameter that stands behind it; 0: none.
struct Piece {
    std::string text;
    size_t parameter = 0;
};

class PostgresStatement final : public SqlStatement {
  public:
    PostgresStatement(PostgresSession& session, std::vector<Piece> pieces, size_t parameters, bool several)
        : session_(session), pieces_(std::move(pieces)), parameters_(parameters), several_(several) {
        for (const Piece& piece : pieces_) {
            sql_ += piece.text;
            sql_ += piece.parameter == 0 ? "" : "$" + std::to_string(piece.parameter);
        }
    }

    SqlStatement& bind(int index, int64_t value) override { return bind_text(index, std::to_string(value)); }
    SqlStatement& bind(int index, std::nullptr_t) override {
        if (PostgresParameter* parameter = at(index); parameter != nullptr) {
            *parameter = {};
        }
        return *this;
    }
    SqlStatement& bind(int index, std::string_view text) override { return bind_text(index, text); }
    SqlStatement& bind(int index, std::span<const uint8_t> blob) override {
        PostgresParameter* parameter = at(index);
        if (parameter != nullptr && blob.size() > INT_MAX) {
            fault_ = "parameter " + std::to_string(index) + " is too long";
        } else if (parameter != nullptr && several_) {
            fault_ = "parameter " + std::to_string(index) + " is bytes, which several statements cannot have";
        } else if (parameter != nullptr) {
            parameter->type = kByteaOid;
            parameter->value = blob.empty() ? "" : reinterpret_cast<const char*>(blob.data());
            parameter->length = static_cast<int>(blob.size());
            parameter->format = 1;
        }
        return *this;
    }

    SqlStep step() override {
        blobs_.clear();
        if (result_) {
            row_ = std::min(row_ + 1, rows_);
        } else if (!fault_.empty()) {
            session_.begin();
            session_.note(PostgresFailure::Kind::kUnusable, fault_);
            return SqlStep::kFailed;
        } else if (result_ =
                       several_ ? session_.query_several(with_literals()) : session_.query(sql_, parameters_);
                   !result_) {
            return SqlStep::kFailed;
        } else {
            row_ = 0;
            rows_ = PQntuples(result_.get());
            rows_changed_ = std::strtoll(PQcmdTuples(result_.get()), nullptr, 10);
        }
        return row_ < rows_ ? SqlStep::kRow : SqlStep::kDone;
    }
    void reset() override {
        result_.reset();
        blobs_.clear();
        fault_.clear();
        row_ = rows_ = 0;
        for (PostgresParameter& parameter : parameters_) {
            parameter.type = 0;
            parameter.value = nullptr;
            parameter.length = parameter.format = 0;  // the room of its text is kept
        }
    }
    [[nodiscard]] int64_t rows_changed() const override { return rows_changed_; }

    [[nodiscard]] bool column_is_null(int column) const override {
        return !has(column) || PQgetisnull(result_.get(), row_, column) != 0;
    }
    [[nodiscard]] int64_t column_int(int column) const override {
        const std::string_view text = column_text(column);
        int64_t value = 0;
        std::from_chars(text.data(), text.data() + text.size(), value);
        return text == "t" ? 1 : value;
    }
    [[nodiscard]] std::string_view column_text(int column) const override {
        return column_is_null(column)
                   ? std::string_view()
                   : std::string_view(PQgetvalue(result_.get(), row_, column),
                                      static_cast<size_t>(PQgetlength(result_.get(), row_, column)));
    }
    [[nodiscard]] std::span<const uint8_t> column_blob(int column) const override {
        const std::string_view text = column_text(column);
        if (text.empty() || PQftype(result_.get(), column) != kByteaOid) {
            return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
        }
        // Both of its forms, by the server's bytea_output.
        size_t size = 0;
        PqPtr<unsigned char> bytes(
            PQunescapeBytea(reinterpret_cast<const unsigned char*>(text.data()), &size));
        const std::span<const uint8_t> blob(bytes.get(), bytes ? size : 0);
        blobs_.push_back(std::move(bytes));
        return blob;
    }

  private:
    PostgresParameter* at(int index) {
        if (index < 1 || static_cast<size_t>(index) > parameters_.size()) {
            fault_ = "has no parameter " + std::to_string(index);
            return nullptr;
        }
        return &parameters_[static_cast<size_t>(index) - 1];
    }
    /// Copied, since libpq wants a NUL behind it.
    SqlStatement& bind_text(int index, std::string_view text) {
        PostgresParameter* parameter = at(index);
        if (parameter != nullptr && text.find('\0') != std::string_view::npos) {
            fault_ = "parameter " + std::to_string(index) + " holds a NUL, which no text of PostgreSQL can";
        } else if (parameter != nullptr) {
            parameter->text.assign(text);
            parameter->type = 0;
            parameter->value = parameter->text.c_str();
            parameter->format = 0;
        }
        return *this;
    }
    [[nodiscard]] std::string with_literals() const {
        std::string sql;
        for (const Piece& piece : pieces_) {
            sql += piece.text;
            sql += piece.parameter == 0 ? "" : session_.literal(parameters_[piece.parameter - 1]);
        }
        return sql;
    }
    [[nodiscard]] bool has(int column) const {
        return result_ && row_ < rows_ && column >= 0 && column < PQnfields(result_.get());
    }

    PostgresSession& session_;
    const std::vector<Piece> pieces_;
    std::vector<PostgresParameter> parameters_;
    const bool several_;
    std::string sql_;
    std::string fault_;  // of what was bound
    PqPtr<PGresult> result_;
    int row_ = 0;
    int rows_ = 0;
    int64_t rows_changed_ = 0;
    mutable std::vector<PqPtr<unsigned char>> blobs_;  // of this row
};

}  // namespace

Result<SqlStatementPtr> make_statement(PostgresSession& session, std::string_view sql) {
    const bool several = sql.find(';') != std::string_view::npos;
    std::vector<Piece> pieces;
    size_t parameters = 0;
    while (!sql.empty()) {
        const size_t mark = std::min(sql.find('?'), sql.size());
        Piece& piece = pieces.emplace_back(std::string(sql.substr(0, mark)));
        sql.remove_prefix(mark);
        if (sql.empty()) {
            break;
        }
        const auto [end, error] = std::from_chars(sql.data() + 1, sql.data() + sql.size(), piece.parameter);
        if (error != std::errc() || piece.parameter < 1 || piece.parameter > PQ_QUERY_PARAM_MAX_LIMIT) {
            return fail(postgres_store_named(session.place()) +
                        ": preparing: a '?' in the statement has no number of a parameter");
        }
        parameters = std::max(parameters, piece.parameter);
        sql.remove_prefix(static_cast<size_t>(end - sql.data()));
    }
    return std::make_unique<PostgresStatement>(session, std::move(pieces), parameters, several);
}

}  // namespace apikeyd
