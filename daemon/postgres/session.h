// A connection of libpq, and the waiting for it. Private to daemon/postgres.

#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "postgres/connection.h"
#include "postgres/failure.h"
#include "postgres/pq.h"
#include "postgres/settings.h"

namespace apikeyd {

/// A parameter as libpq takes it; by default NULL.
struct PostgresParameter {
    Oid type = 0;  // 0: what the server takes it for
    const char* value = nullptr;
    int length = 0;
    int format = 0;    // 0: text, up to a NUL; 1: binary
    std::string text;  // what `value` may point to
};

/// What libpq holds, and the waiting for it. Every function that can fail notes why: of several failures the
/// first one counts.
class PostgresSession {
  public:
    PostgresSession(std::string place, PostgresOptions options)
        : place_(std::move(place)), options_(std::move(options)) {}

    bool connect(const std::vector<PostgresSettings>& hosts);
    bool execute(const char* sql);
    /// The answer to one statement; nullptr when it failed.
    PqPtr<PGresult> query(const std::string& sql, std::span<const PostgresParameter> parameters);
    /// The rows of the last one that answers rows; nullptr when one failed, or none answers any.
    PqPtr<PGresult> query_several(const std::string& sql);
    /// In its quotes; empty when the connection is lost, or the text is not UTF-8.
    [[nodiscard]] std::string literal(const PostgresParameter& parameter) const;
    bool copy(const std::string& sql, const PostgresConnection::CopyRow& row);
    bool take_notifications();

    [[nodiscard]] bool is_broken() const { return PQstatus(connection_.get()) != CONNECTION_OK; }
    [[nodiscard]] PGconn* raw() const { return connection_.get(); }
    [[nodiscard]] const std::string& place() const { return place_; }
    [[nodiscard]] Error last_error(std::string_view doing) const { return worded(place_, doing, failure_); }

    /// Forgets what failed before.
    void begin() { failure_ = {}; }
    void note(PostgresFailure::Kind kind, std::string text);

  private:
    bool connect_to(const PostgresSettings& host, uint64_t wait_ms_max);
    bool is_usable();
    bool was_sent(int libpq_says);
    bool next_result(PqPtr<PGresult>& result);
    bool finish(PqPtr<PGresult>* rows = nullptr);
    void look_at(const PGresult* result);
    bool wait(short events, uint64_t until_ns, uint64_t wait_ms_max);
    bool wait_for_answer(short events);
    bool consume();
    void take_notified();
    bool lost();
    void close() { connection_.reset(); }

    const std::string place_;
    const PostgresOptions options_;
    PqPtr<PGconn> connection_;
    PostgresFailure failure_;
    std::string command_tag_;  // of the last answer
    bool committing_ = false;
    bool notified_ = false;
};

}  // namespace apikeyd
