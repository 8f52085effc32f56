#include "postgres/session.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>

#include "base/clock.h"
#include "base/errno_text.h"
#include "postgres/copy_reader.h"

namespace apikeyd {

namespace {

constexpr uint64_t kNsPerMs = 1'000'000;
/// Of one poll(): how late `stopping` is seen at most.
constexpr uint64_t kSlice_ms = 100;
/// What is read of rows that nobody wants any more before the connection is closed instead.
constexpr size_t kDrainBytesMax = 1 << 20;

}  // namespace

void PostgresSession::note(PostgresFailure::Kind kind, std::string text) {
    if (failure_.kind == PostgresFailure::Kind::kNone) {
        failure_ = {.kind = kind, .text = std::move(text)};
    }
}

/// Until the socket can do one of `events`. False: given up, and closed.
bool PostgresSession::wait(short events, uint64_t until_ns, uint64_t wait_ms_max) {
    while (true) {
        if (options_.stopping && options_.stopping->load(std::memory_order_relaxed)) {
            note(PostgresFailure::Kind::kStopped, "apikeyd is stopping");
            close();
            return false;
        }
        pollfd polled{.fd = PQsocket(connection_.get()), .events = events, .revents = 0};
        if (polled.fd < 0) {
            return true;  // libpq has closed it, and will say why
        }
        const uint64_t now_ns = monotonic_now_ns();
        const uint64_t left_ms = until_ns > now_ns ? (until_ns - now_ns + kNsPerMs - 1) / kNsPerMs : 0;
        const int ready = ::poll(&polled, 1, static_cast<int>(std::min(left_ms, kSlice_ms)));
        if (ready > 0) {
            return true;
        }
        if (ready < 0 && errno != EINTR) {
            note(PostgresFailure::Kind::kLost, "poll: " + errno_text(errno));
            close();
            return false;
        }
        if (left_ms == 0) {
            note(PostgresFailure::Kind::kSilent, "nothing came for " + std::to_string(wait_ms_max) + " ms");
            close();
            return false;
        }
    }
}

bool PostgresSession::wait_for_answer(short events) {
    const uint64_t wait_ms_max = options_.answer_wait_ms_max;
    return wait(events, monotonic_now_ns() + wait_ms_max * kNsPerMs, wait_ms_max);
}

bool PostgresSession::connect(const std::vector<PostgresSettings>& hosts) {
    // Without it OpenSSL would ask for the password of an encrypted key at a terminal, for ever.
    static std::once_flag once;
    std::call_once(once, [] { PQsetSSLKeyPassHook_OpenSSL(PQdefaultSSLKeyPassHook_OpenSSL); });

    const uint64_t until_ns = monotonic_now_ns() + options_.connect_wait_ms_max * kNsPerMs;
    std::string texts;
    for (size_t i = 0; i < hosts.size(); ++i) {
        begin();
        const uint64_t now_ns = monotonic_now_ns();
        const uint64_t left_ms = until_ns > now_ns ? (until_ns - now_ns + kNsPerMs - 1) / kNsPerMs : 0;
        if (connect_to(hosts[i], left_ms / (hosts.size() - i))) {
            return true;
        }
        close();
        if (failure_.kind == PostgresFailure::Kind::kStopped) {
            return false;
        }
        texts.append(texts.empty() ? "" : "; ");
        if (hosts.size() > 1 && !failure_.text.starts_with("connection to ")) {  // which names the host
            const std::string name = hosts[i].get("host");
            texts.append(name.empty() ? hosts[i].get("hostaddr") : name).append(": ");
        }
        texts.append(failure_.text);
    }
    failure_.text = std::move(texts);
    return false;
}

bool PostgresSession::connect_to(const PostgresSettings& host, uint64_t wait_ms_max) {
    const uint64_t until_ns = monotonic_now_ns() + wait_ms_max * kNsPerMs;
    // This and PQconnectPoll() resolve the names of hosts by getaddrinfo(), which does not know our bound:
    // see PostgresOptions. They read the files that the URI names, too.
    connection_ = host.start();
    if (!connection_) {
        note(PostgresFailure::Kind::kNotReached, "out of memory");
        return false;
    }
    PGconn* raw = connection_.get();
    PQsetErrorVerbosity(raw, PQERRORS_VERBOSE);  // see find_sqlstate()
    // What the server has to say by the way is for its own log; by default it would come on standard error.
    PQsetNoticeReceiver(
        raw, [](void*, const PGresult*) {}, nullptr);
    PostgresPollingStatusType polling =
        PQstatus(raw) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
    while (polling != PGRES_POLLING_OK) {
        if (polling == PGRES_POLLING_FAILED) {
            if (!find_sqlstate(PQerrorMessage(raw), failure_)) {
                note(PQconnectionNeedsPassword(raw) != 0 ? PostgresFailure::Kind::kNeedsPassword
                                                         : PostgresFailure::Kind::kNotReached,
                     without_guesses(PQerrorMessage(raw)));
            }
            return false;
        }
        if (!wait(polling == PGRES_POLLING_READING ? POLLIN : POLLOUT, until_ns, wait_ms_max)) {
            return false;
        }
        polling = PQconnectPoll(raw);
    }
    // Or sending would wait inside libpq; and closing, when what was sent is not taken in.
    if (PQsetnonblocking(raw, 1) != 0) {
        return lost();
    }
    return true;
}

bool PostgresSession::is_usable() {
    begin();
    committing_ = false;
    command_tag_.clear();
    if (is_broken()) {
        note(PostgresFailure::Kind::kLost, "it was lost before");
        return false;
    }
    return true;
}

/// Notes what libpq says, and closes what is left of the connection.
bool PostgresSession::lost() {
    note(PostgresFailure::Kind::kLost, first_line(PQerrorMessage(connection_.get())));
    close();
    return false;
}

/// Gives the server all that stands in libpq's buffer. `libpq_says`: what the call that filled it answered.
bool PostgresSession::was_sent(int libpq_says) {
    if (libpq_says == 0) {
        if (is_broken()) {
            return lost();
        }
        note(PostgresFailure::Kind::kUnusable, PQerrorMessage(connection_.get()));
        return false;
    }
    while (true) {
        const int left = PQflush(connection_.get());
        if (left == 0) {
            return true;
        }
        if (left > 0 && !wait_for_answer(POLLIN | POLLOUT)) {
            return false;
        }
        // What the server says meanwhile is taken in, or each would wait for the other.
        if (left < 0 || !consume()) {
            return PQsocket(connection_.get()) < 0 || lost();  // closed: its last words stand in the answer
        }
    }
}

/// False: libpq's message says why; what came before may still be there.
bool PostgresSession::consume() {
    // An encrypted record of 16 KiB may come out in two parts, the second of which poll() knows nothing
    // about.
    const bool encrypted = PQsslInUse(connection_.get()) != 0 || PQgssEncInUse(connection_.get()) != 0;
    for (int i = 0; i < (encrypted ? 2 : 1); ++i) {
        if (PQconsumeInput(connection_.get()) == 0) {
            return false;
        }
    }
    take_notified();
    return true;
}

/// Also who does not listen may be told: a pooler lends the sessions of others. libpq would keep them all.
void PostgresSession::take_notified() {
    while (PqPtr<PGnotify>(PQnotifies(connection_.get()))) {
        notified_ = true;
    }
}

/// The next answer to what was sent; nullptr behind the last one. False: it does not come, and the connection
/// is closed.
bool PostgresSession::next_result(PqPtr<PGresult>& result) {
    while (PQisBusy(connection_.get()) != 0) {
        if (!wait_for_answer(POLLIN)) {
            return false;
        }
        // A server that ends a connection says why before; that may be there although nothing more comes.
        if (!consume() && PQisBusy(connection_.get()) != 0) {
            return lost();
        }
    }
    result.reset(PQgetResult(connection_.get()));
    return true;
}

/// Notes the failure that it stands for, if any.
void PostgresSession::look_at(const PGresult* result) {
    switch (PQresultStatus(result)) {
        case PGRES_EMPTY_QUERY:
        case PGRES_COMMAND_OK:
        case PGRES_TUPLES_OK:
        case PGRES_COPY_OUT:
        case PGRES_COPY_IN:
        case PGRES_COPY_BOTH:
            return;
        default:
            break;
    }
    const char* sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char* primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (sqlstate != nullptr && primary != nullptr) {
        note(PostgresFailure::Kind::kServer, primary);
        if (failure_.sqlstate.empty() && failure_.kind == PostgresFailure::Kind::kServer) {
            failure_.sqlstate = sqlstate;
        }
    } else {
        note(PostgresFailure::Kind::kLost, first_line(PQresultErrorMessage(result)));
    }
}

/// Reads all answers, so that the next statement can be sent; `rows` gets the last of them that has rows.
/// False when one of them is a failure.
bool PostgresSession::finish(PqPtr<PGresult>* rows) {
    PqPtr<PGresult> result;
    while (next_result(result) && result) {
        look_at(result.get());
        const ExecStatusType status = PQresultStatus(result.get());
        if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
            // The server waits for rows, or has rows that nobody wants: libpq would answer this for ever.
            note(PostgresFailure::Kind::kUnusable, "no COPY was expected here");
            close();
            break;
        }
        command_tag_ = PQcmdStatus(result.get());
        if (rows != nullptr && status == PGRES_TUPLES_OK) {
            *rows = std::move(result);
        }
    }
    if (failure_.kind != PostgresFailure::Kind::kNone) {
        failure_.while_committing = committing_ && is_broken();
        return false;
    }
    return true;
}

bool PostgresSession::execute(const char* sql) {
    if (!is_usable()) {
        return false;
    }
    committing_ = std::string_view(sql).starts_with("COMMIT");
    // The simple protocol: it alone takes several statements.
    const bool sent = was_sent(PQsendQuery(connection_.get(), sql));
    if (!finish() || !sent) {
        return false;
    }
    if (committing_ && command_tag_ == "ROLLBACK") {
        note(PostgresFailure::Kind::kServer, "COMMIT was answered by ROLLBACK");
        failure_.sqlstate = "25P02";
        return false;
    }
    return true;
}

PqPtr<PGresult> PostgresSession::query(const std::string& sql,
                                       std::span<const PostgresParameter> parameters) {
    if (!is_usable()) {
        return nullptr;
    }
    std::vector<Oid> types;
    std::vector<const char*> values;
    std::vector<int> lengths;
    std::vector<int> formats;
    for (const PostgresParameter& parameter : parameters) {
        types.push_back(parameter.type);
        values.push_back(parameter.value);
        lengths.push_back(parameter.length);
        formats.push_back(parameter.format);
    }
    // Not prepared in the server: a pooler may give the next transaction another session of it.
    const bool sent =
        was_sent(PQsendQueryParams(connection_.get(), sql.c_str(), static_cast<int>(parameters.size()),
                                   types.data(), values.data(), lengths.data(), formats.data(), 0));
    PqPtr<PGresult> result;
    if (sent && next_result(result) && result) {
        look_at(result.get());
    }
    if (!finish() || !sent) {
        return nullptr;
    }
    return result;
}

PqPtr<PGresult> PostgresSession::query_several(const std::string& sql) {
    if (!is_usable()) {
        return nullptr;
    }
    const bool sent = was_sent(PQsendQuery(connection_.get(), sql.c_str()));
    PqPtr<PGresult> rows;
    if (!finish(&rows) || !sent) {
        return nullptr;
    }
    if (!rows) {
        note(PostgresFailure::Kind::kUnusable, "no rows were answered");
    }
    return rows;
}

std::string PostgresSession::literal(const PostgresParameter& parameter) const {
    if (parameter.value == nullptr) {
        return "NULL";
    }
    const PqPtr<char> escaped(
        is_broken() ? nullptr
                    : PQescapeLiteral(connection_.get(), parameter.text.data(), parameter.text.size()));
    return escaped ? escaped.get() : "";
}

bool PostgresSession::copy(const std::string& sql, const PostgresConnection::CopyRow& row) {
    if (!is_usable()) {
        return false;
    }
    PqPtr<PGresult> result;
    if (!was_sent(PQsendQuery(connection_.get(), sql.c_str())) || !next_result(result)) {
        return finish();
    }
    look_at(result.get());
    if (PQresultStatus(result.get()) != PGRES_COPY_OUT || PQbinaryTuples(result.get()) == 0) {
        note(PostgresFailure::Kind::kUnusable, "is no COPY TO STDOUT in the binary format");
        finish();
        return false;
    }
    CopyReader reader(static_cast<size_t>(PQnfields(result.get())));
    auto outcome = CopyReader::Outcome::kMore;
    size_t drained_bytes = 0;
    bool is_gone = false;  // nothing more comes than what libpq has already
    while (true) {
        char* raw = nullptr;
        const int length = PQgetCopyData(connection_.get(), &raw, 1);
        const PqPtr<char> piece(raw);
        if (length < 0) {
            break;  // the end, or a failure, which the answer behind it tells
        }
        if (length == 0) {
            if (is_gone || !wait_for_answer(POLLIN)) {
                lost();
                break;
            }
            is_gone = !consume();
            continue;
        }
        if (outcome == CopyReader::Outcome::kMore) {
            outcome = reader.take({piece.get(), static_cast<size_t>(length)}, row);
        } else {
            drained_bytes += static_cast<size_t>(length);
        }
        if (outcome == CopyReader::Outcome::kDamaged || drained_bytes > kDrainBytesMax) {
            close();
            break;
        }
    }
    if (outcome == CopyReader::Outcome::kEnough) {
        if (connection_) {
            finish();
        }
        return true;
    }
    if (outcome == CopyReader::Outcome::kMore && !finish()) {
        return false;
    }
    if (outcome == CopyReader::Outcome::kDamaged || !reader.is_whole()) {
        note(PostgresFailure::Kind::kUnusable, "the rows that came are damaged or not all; try again");
        return false;
    }
    return true;
}

bool PostgresSession::take_notifications() {
    if (!is_broken()) {
        begin();
        if (!consume()) {
            lost();
        }
    }
    return std::exchange(notified_, false);
}

}  // namespace apikeyd
