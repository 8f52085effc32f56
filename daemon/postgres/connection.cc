#include "postgres/connection.h"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <initializer_list>
#include <mutex>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/errno_text.h"
#include "base/utf8.h"
#include "base/without_secrets.h"
#include "postgres/place.h"

namespace apikeyd {

namespace {

constexpr uint64_t kNsPerMs = 1'000'000;
/// Of one poll(): how late `stopping` is seen at most.
constexpr uint64_t kSlice_ms = 100;
/// What is read of rows that nobody wants any more before the connection is closed instead.
constexpr size_t kDrainBytesMax = 1 << 20;
/// Of a message that comes from elsewhere.
constexpr size_t kShownBytesMax = 600;
constexpr Oid kByteaOid = 17;  // pg_type.dat; never changes

struct PqDeleter {
    void operator()(PGconn* connection) const { PQfinish(connection); }
    void operator()(PGresult* result) const { PQclear(result); }
    void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
    void operator()(PGnotify* notification) const { PQfreemem(notification); }
    void operator()(char* memory) const { PQfreemem(memory); }
    void operator()(unsigned char* memory) const { PQfreemem(memory); }
};

template <typename T>
using PqPtr = std::unique_ptr<T, PqDeleter>;

/// Why something did not come about.
struct Failure {
    enum class Kind : uint8_t {
        kNone,
        kServer,         ///< the server says so, with an SQLSTATE
        kNotReached,     ///< by libpq: no connection came about
        kNeedsPassword,  ///< the same, for want of one
        kLost,           ///< by libpq: the connection is no more
        kSilent,         ///< waited long enough
        kStopped,        ///< `stopping` was set
        kUnusable,       ///< the statement, or the answer
    };
    Kind kind = Kind::kNone;
    std::string sqlstate{};
    std::string text{};
    bool while_committing = false;  ///< and the answer to that did not come
};

/// In one line of printing characters, of a bounded length, without the secrets of keys.
std::string shown_message(std::string_view text) {
    std::string line;
    bool space = false;
    while (!text.empty() && line.size() < kShownBytesMax) {
        char32_t code_point = 0;
        const size_t bytes = utf8_sequence(text, code_point);
        if (bytes == 0) {
            line += '?';
        } else if (code_point == ' ' || misleads(code_point)) {
            space = !line.empty();
        } else {
            line.append(std::exchange(space, false) ? " " : "").append(text.substr(0, bytes));
        }
        text.remove_prefix(std::max<size_t>(bytes, 1));
    }
    return without_secrets(line.append(text.empty() ? "" : "..."));
}

/// libpq's message without its guesses at the cause, which it puts on lines of their own.
std::string without_guesses(std::string_view text) {
    std::string kept;
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        if (!line.starts_with('\t')) {
            kept.append(kept.empty() || line.empty() ? "" : "\n").append(line);
        }
        text.remove_prefix(std::min(text.size(), line.size() + 1));
    }
    return kept;
}

std::string first_line(std::string_view text) {
    return std::string(text.substr(0, text.find('\n')));
}

bool mentions_any(std::string_view text, std::initializer_list<std::string_view> words) {
    return std::any_of(words.begin(), words.end(),
                       [&](std::string_view word) { return text.find(word) != std::string_view::npos; });
}

/// What to do about it, for what an operator can meet; empty: the server's own words say it.
std::string_view advice_by_sqlstate(std::string_view sqlstate) {
    struct Advice {
        std::string_view begins_with;  // of the SQLSTATE: its class or all of it
        std::string_view words;
    };
    static constexpr std::string_view kTablesMissing =
        "apikeyd's tables are not there, or not as this release knows them; have the database's owner run "
        "share/apikeyd/postgres_schema.sql of this release in it with psql";
    static constexpr std::string_view kComingOrGoing =
        "the server is starting, stopping or restarting; try again once it is up";
    static constexpr std::string_view kAtTheSameTime =
        "another transaction changed the same at the same time; try again";
    static constexpr std::string_view kNotRequested = "the server ended it; try again";
    static constexpr Advice kAdvice[] = {
        // the first that fits
        {"08",
         "the server, or a pooler before it, refused or broke the connection; check the URI and its log"},
        {"22", ""},
        {"23", ""},
        {"25006",
         "the server is read-only, perhaps a standby; name the primary in the URI, or all hosts and "
         "target_session_attrs=read-write"},
        {"25P02",
         "an earlier statement of the transaction failed, so all of it was taken back; see that error"},
        {"25P03", kNotRequested},
        {"28",
         "the server refused the user; check the user of the URI, its password file or certificate, and the "
         "server's pg_hba.conf"},
        {"3D000", "there is no such database; create it, or name another in the URI"},
        {"3F000", kTablesMissing},
        {"40001", kAtTheSameTime},
        {"40P01", kAtTheSameTime},
        {"42501",
         "the user lacks rights; GRANT it the role apikeyd_reader to read keys, apikeyd_writer to change "
         "them"},
        {"42703", kTablesMissing},
        {"42883", kTablesMissing},
        {"42P01", kTablesMissing},
        {"53300",
         "the server has no connection left; raise its max_connections, or close some that others hold"},
        {"53", "the server is short of disk, memory or another resource; see its log"},
        {"55P03", "a lock was not granted in time; end the transaction that holds it, or try again"},
        {"57014", "a time limit (statement_timeout) or an administrator ended it; raise that, or try again"},
        {"57P04", "the database was dropped; name another in the URI"},
        {"57P05", kNotRequested},
        {"57P", kComingOrGoing},
        {"P0001", ""},
    };
    for (const Advice& advice : kAdvice) {
        if (sqlstate.starts_with(advice.begins_with)) {
            return advice.words;
        }
    }
    return "unexpected failure of the server; see its log";
}

std::string_view advice(const Failure& failure) {
    switch (failure.kind) {
        case Failure::Kind::kServer:
            return advice_by_sqlstate(failure.sqlstate);
        case Failure::Kind::kNeedsPassword:
            return advice_by_sqlstate("28");
        case Failure::Kind::kNotReached:
            if (mentions_any(failure.text, {"SSL", "certificate", "private key"})) {
                return "TLS failed; check sslmode, sslrootcert, sslcert and sslkey of the URI, and the name "
                       "in "
                       "the server's certificate";
            }
            if (mentions_any(failure.text, {"hot standby mode", "session is "})) {
                return "a server is not of the kind that target_session_attrs of the URI wants; name the one "
                       "that is, or all";
            }
            return "cannot be reached; check that the server runs, and host and port of the URI";
        case Failure::Kind::kLost:
            return "the connection was lost; check the server and the network, then try again";
        case Failure::Kind::kSilent:
            return "does not answer; check whether the server hangs or is overloaded, and the network";
        case Failure::Kind::kStopped:
            return "given up";
        case Failure::Kind::kUnusable:
        case Failure::Kind::kNone:
            break;
    }
    return {};
}

std::string store_named(std::string_view place) {
    return "key store postgresql:" + shown_place(place);
}

Error worded(std::string_view place, std::string_view doing, const Failure& failure) {
    std::string message = store_named(place).append(": ").append(doing).append(": ");
    const std::string text = shown_message(failure.text);
    const std::string by = failure.sqlstate.empty() ? "PostgreSQL" : "PostgreSQL " + failure.sqlstate;
    if (failure.kind == Failure::Kind::kNone) {
        message += "unexpected failure";
    } else if (const std::string_view words = advice(failure); words.empty()) {
        message += failure.sqlstate.empty() ? text : text + " (" + by + ")";
    } else {
        message.append(words).append(" (").append(by).append(": ").append(text).append(")");
    }
    if (failure.while_committing) {
        message += "; whether it was committed is not known: look before it is done again";
    }
    const bool of_what_was_asked = failure.sqlstate.starts_with("22") || failure.sqlstate.starts_with("23") ||
                                   failure.sqlstate == "P0001";
    return Error{std::move(message), !of_what_was_asked};
}

/// The SQLSTATE and the primary message in one of libpq's of PQERRORS_VERBOSE, the only way to the SQLSTATE
/// of a failed connection: `<libpq's words>FATAL:  3D000: database "keys" does not exist`, then other lines.
bool find_sqlstate(std::string_view text, Failure& failure) {
    constexpr std::string_view kBefore = ":  ";
    constexpr size_t kLength = 5;
    for (size_t at = text.find(kBefore); at != std::string_view::npos; at = text.find(kBefore, at + 1)) {
        const std::string_view rest = text.substr(at + kBefore.size());
        const std::string_view sqlstate = rest.substr(0, kLength);
        if (rest.substr(sqlstate.size()).starts_with(": ") &&
            std::all_of(sqlstate.begin(), sqlstate.end(),
                        [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); })) {
            const std::string_view primary = rest.substr(kLength + 2);
            failure.kind = Failure::Kind::kServer;
            failure.sqlstate = sqlstate;
            failure.text = primary.substr(0, primary.find('\n'));
            return true;
        }
    }
    return false;
}

/// Connection parameters by keyword.
class Settings {
  public:
    [[nodiscard]] std::string get(std::string_view keyword) const {
        const auto found = find(keyword);
        return found == all_.end() ? std::string() : found->second;
    }
    /// An empty one counts as not given.
    void set(std::string_view keyword, std::string value) {
        if (const auto found = find(keyword); found != all_.end()) {
            all_.erase(found);
        }
        if (!value.empty()) {
            all_.emplace_back(keyword, std::move(value));
        }
    }
    PqPtr<PGconn> start() const {
        std::vector<const char*> keywords;
        std::vector<const char*> values;
        for (const auto& [keyword, value] : all_) {
            keywords.push_back(keyword.c_str());
            values.push_back(value.c_str());
        }
        keywords.push_back(nullptr);
        values.push_back(nullptr);
        return PqPtr<PGconn>(PQconnectStartParams(keywords.data(), values.data(), 0));
    }

  private:
    using All = std::vector<std::pair<std::string, std::string>>;
    [[nodiscard]] All::const_iterator find(std::string_view keyword) const {
        return std::find_if(all_.begin(), all_.end(), [&](const auto& one) { return one.first == keyword; });
    }
    All all_;
};

/// Those of the URI, which go before ours.
Result<Settings> settings_of(const std::string& place) {
    char* raw_error = nullptr;
    const PqPtr<PQconninfoOption> parsed(PQconninfoParse(("postgresql:" + place).c_str(), &raw_error));
    const PqPtr<char> error(raw_error);
    if (!parsed) {
        return fail(store_named(place) + ": libpq does not understand the URI: " +
                    shown_message(error ? error.get() : "out of memory"));
    }
    Settings settings;
    settings.set("fallback_application_name", "apikeyd");
    // A connection that the other end does not know any more is noticed within 25 s, also when it is idle.
    settings.set("keepalives_idle", "10");
    settings.set("keepalives_interval", "5");
    settings.set("keepalives_count", "3");
    settings.set("tcp_user_timeout", "20000");
    for (const PQconninfoOption* option = parsed.get(); option->keyword != nullptr; ++option) {
        if (option->val != nullptr) {
            settings.set(option->keyword, option->val);
        }
    }
    settings.set("client_encoding", "UTF8");
    return settings;
}

std::vector<std::string> split_list(const std::string& list) {
    std::vector<std::string> parts;
    for (size_t begin = 0; !list.empty() && begin <= list.size();) {
        const size_t end = std::min(list.find(',', begin), list.size());
        parts.push_back(list.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

/// One for each host that is named, in the order in which libpq would try them. By itself it would go on to
/// the next only when one refuses, not when one says nothing.
std::vector<Settings> each_host(const Settings& all) {
    const std::vector<std::string> hosts = split_list(all.get("host"));
    const std::vector<std::string> addresses = split_list(all.get("hostaddr"));
    const std::vector<std::string> ports = split_list(all.get("port"));
    const size_t count = std::max(hosts.size(), addresses.size());
    const auto fits = [&](const std::vector<std::string>& list) {
        return list.empty() || list.size() == count;
    };
    if (count < 2 || !fits(hosts) || !fits(addresses) || (ports.size() != 1 && !fits(ports))) {
        return {all};  // one, or what libpq will refuse
    }
    std::vector<std::string> sessions = {all.get("target_session_attrs")};
    if (sessions[0] == "prefer-standby") {
        sessions = {"standby", "any"};
    }
    std::vector<Settings> each;
    for (const std::string& session : sessions) {
        for (size_t i = 0; i < count; ++i) {
            Settings one = all;
            one.set("target_session_attrs", session);
            one.set("host", hosts.empty() ? "" : hosts[i]);
            one.set("hostaddr", addresses.empty() ? "" : addresses[i]);
            if (ports.size() == count) {
                one.set("port", ports[i]);
            }
            each.push_back(std::move(one));
        }
    }
    return each;
}

/// Takes the binary format of COPY apart as it comes. The server sends a row a piece, the header with the
/// first, but the protocol promises no such thing.
class CopyReader {
  public:
    enum class Outcome : uint8_t { kMore, kEnough, kDamaged };

    explicit CopyReader(size_t columns) : fields_(columns) {}

    /// kEnough: `row` wants no more.
    Outcome take(std::string_view piece, const PostgresConnection::CopyRow& row) {
        if (!kept_.empty()) {
            kept_.append(piece);
            piece = kept_;
        }
        rest_ = piece;
        Outcome outcome = Outcome::kMore;
        while (outcome == Outcome::kMore) {
            const std::string_view before = rest_;
            const Read read = in_header_ ? read_header() : read_row();
            if (read == Read::kShort) {
                rest_ = before;
                break;
            }
            if (read == Read::kDamaged) {
                outcome = Outcome::kDamaged;
            } else if (read == Read::kRow && !row(fields_)) {
                outcome = Outcome::kEnough;
            }
        }
        if (kept_.empty()) {
            kept_.assign(rest_);
        } else {
            kept_.erase(0, kept_.size() - rest_.size());
        }
        return outcome;
    }
    /// Whether the end has come, and nothing behind it.
    [[nodiscard]] bool is_whole() const { return ended_ && kept_.empty(); }

  private:
    enum class Read : uint8_t { kShort, kDamaged, kHeader, kRow, kEnd };

    /// The next `length` bytes; nullopt when they are not all there yet.
    std::optional<std::string_view> next(size_t length) {
        if (rest_.size() < length) {
            return std::nullopt;
        }
        const std::string_view bytes = rest_.substr(0, length);
        rest_.remove_prefix(length);
        return bytes;
    }

    Read read_header() {
        using namespace std::string_view_literals;
        constexpr std::string_view kSignature = "PGCOPY\n\377\r\n\0"sv;
        constexpr int32_t kCriticalFlags = static_cast<int32_t>(0xFFFF0000);
        const std::optional<std::string_view> signature = next(kSignature.size());
        const auto flags = copied_int<int32_t>(next(sizeof(int32_t)));
        const auto extension = copied_int<int32_t>(next(sizeof(int32_t)));
        if (!signature || !flags || !extension) {
            return Read::kShort;
        }
        if (*signature != kSignature || (*flags & kCriticalFlags) != 0 || *extension < 0) {
            return Read::kDamaged;
        }
        if (!next(static_cast<size_t>(*extension))) {
            return Read::kShort;
        }
        in_header_ = false;
        return Read::kHeader;
    }

    Read read_row() {
        if (ended_) {
            return rest_.empty() ? Read::kShort : Read::kDamaged;
        }
        const auto count = copied_int<int16_t>(next(sizeof(int16_t)));
        if (!count) {
            return Read::kShort;
        }
        if (*count == -1) {
            ended_ = true;
            return Read::kEnd;
        }
        if (*count < 0 || static_cast<size_t>(*count) != fields_.size()) {
            return Read::kDamaged;
        }
        for (std::optional<std::string_view>& field : fields_) {
            const auto length = copied_int<int32_t>(next(sizeof(int32_t)));
            if (!length) {
                return Read::kShort;
            }
            if (*length < -1) {
                return Read::kDamaged;
            }
            field = *length == -1 ? std::nullopt : next(static_cast<size_t>(*length));
            if (*length != -1 && !field) {
                return Read::kShort;
            }
        }
        return Read::kRow;
    }

    std::vector<std::optional<std::string_view>> fields_;
    std::string_view rest_;  // while take() runs
    std::string kept_;       // the begin of what has not come whole
    bool in_header_ = true;
    bool ended_ = false;
};

/// A parameter as libpq takes it; by default NULL.
struct Parameter {
    Oid type = 0;  // 0: what the server takes it for
    const char* value = nullptr;
    int length = 0;
    int format = 0;    // 0: text, up to a NUL; 1: binary
    std::string text;  // what `value` may point to
};

}  // namespace

/// What libpq holds, and the waiting for it. Every function that can fail notes why: of several failures the
/// first one counts.
class PostgresSession {
  public:
    PostgresSession(std::string place, PostgresOptions options)
        : place_(std::move(place)), options_(std::move(options)) {}

    bool connect(const std::vector<Settings>& hosts);
    bool execute(const char* sql);
    /// The answer to one statement; nullptr when it failed.
    PqPtr<PGresult> query(const std::string& sql, std::span<const Parameter> parameters);
    /// The rows of the last one that answers rows; nullptr when one failed, or none answers any.
    PqPtr<PGresult> query_several(const std::string& sql);
    /// In its quotes; empty when the connection is lost, or the text is not UTF-8.
    [[nodiscard]] std::string literal(const Parameter& parameter) const;
    bool copy(const std::string& sql, const PostgresConnection::CopyRow& row);
    bool take_notifications();

    [[nodiscard]] bool is_broken() const { return PQstatus(connection_.get()) != CONNECTION_OK; }
    [[nodiscard]] PGconn* raw() const { return connection_.get(); }
    [[nodiscard]] const std::string& place() const { return place_; }
    [[nodiscard]] Error last_error(std::string_view doing) const { return worded(place_, doing, failure_); }

    /// Forgets what failed before.
    void begin() { failure_ = {}; }
    void note(Failure::Kind kind, std::string text);

  private:
    bool connect_to(const Settings& host, uint64_t wait_ms_max);
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
    Failure failure_;
    std::string command_tag_;  // of the last answer
    bool committing_ = false;
    bool notified_ = false;
};

void PostgresSession::note(Failure::Kind kind, std::string text) {
    if (failure_.kind == Failure::Kind::kNone) {
        failure_ = {.kind = kind, .text = std::move(text)};
    }
}

/// Until the socket can do one of `events`. False: given up, and closed.
bool PostgresSession::wait(short events, uint64_t until_ns, uint64_t wait_ms_max) {
    while (true) {
        if (options_.stopping && options_.stopping->load(std::memory_order_relaxed)) {
            note(Failure::Kind::kStopped, "apikeyd is stopping");
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
            note(Failure::Kind::kLost, "poll: " + errno_text(errno));
            close();
            return false;
        }
        if (left_ms == 0) {
            note(Failure::Kind::kSilent, "nothing came for " + std::to_string(wait_ms_max) + " ms");
            close();
            return false;
        }
    }
}

bool PostgresSession::wait_for_answer(short events) {
    const uint64_t wait_ms_max = options_.answer_wait_ms_max;
    return wait(events, monotonic_now_ns() + wait_ms_max * kNsPerMs, wait_ms_max);
}

bool PostgresSession::connect(const std::vector<Settings>& hosts) {
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
        if (failure_.kind == Failure::Kind::kStopped) {
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

bool PostgresSession::connect_to(const Settings& host, uint64_t wait_ms_max) {
    const uint64_t until_ns = monotonic_now_ns() + wait_ms_max * kNsPerMs;
    // This and PQconnectPoll() resolve the names of hosts by getaddrinfo(), which does not know our bound:
    // see PostgresOptions. They read the files that the URI names, too.
    connection_ = host.start();
    if (!connection_) {
        note(Failure::Kind::kNotReached, "out of memory");
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
                note(PQconnectionNeedsPassword(raw) != 0 ? Failure::Kind::kNeedsPassword
                                                         : Failure::Kind::kNotReached,
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
        note(Failure::Kind::kLost, "it was lost before");
        return false;
    }
    return true;
}

/// Notes what libpq says, and closes what is left of the connection.
bool PostgresSession::lost() {
    note(Failure::Kind::kLost, first_line(PQerrorMessage(connection_.get())));
    close();
    return false;
}

/// Gives the server all that stands in libpq's buffer. `libpq_says`: what the call that filled it answered.
bool PostgresSession::was_sent(int libpq_says) {
    if (libpq_says == 0) {
        if (is_broken()) {
            return lost();
        }
        note(Failure::Kind::kUnusable, PQerrorMessage(connection_.get()));
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
        note(Failure::Kind::kServer, primary);
        if (failure_.sqlstate.empty() && failure_.kind == Failure::Kind::kServer) {
            failure_.sqlstate = sqlstate;
        }
    } else {
        note(Failure::Kind::kLost, first_line(PQresultErrorMessage(result)));
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
            note(Failure::Kind::kUnusable, "no COPY was expected here");
            close();
            break;
        }
        command_tag_ = PQcmdStatus(result.get());
        if (rows != nullptr && status == PGRES_TUPLES_OK) {
            *rows = std::move(result);
        }
    }
    if (failure_.kind != Failure::Kind::kNone) {
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
        note(Failure::Kind::kServer, "COMMIT was answered by ROLLBACK");
        failure_.sqlstate = "25P02";
        return false;
    }
    return true;
}

PqPtr<PGresult> PostgresSession::query(const std::string& sql, std::span<const Parameter> parameters) {
    if (!is_usable()) {
        return nullptr;
    }
    std::vector<Oid> types;
    std::vector<const char*> values;
    std::vector<int> lengths;
    std::vector<int> formats;
    for (const Parameter& parameter : parameters) {
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
        note(Failure::Kind::kUnusable, "no rows were answered");
    }
    return rows;
}

std::string PostgresSession::literal(const Parameter& parameter) const {
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
        note(Failure::Kind::kUnusable, "is no COPY TO STDOUT in the binary format");
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
        note(Failure::Kind::kUnusable, "the rows that came are damaged or not all; try again");
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
        if (Parameter* parameter = at(index); parameter != nullptr) {
            *parameter = {};
        }
        return *this;
    }
    SqlStatement& bind(int index, std::string_view text) override { return bind_text(index, text); }
    SqlStatement& bind(int index, std::span<const uint8_t> blob) override {
        Parameter* parameter = at(index);
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
            session_.note(Failure::Kind::kUnusable, fault_);
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
        for (Parameter& parameter : parameters_) {
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
    Parameter* at(int index) {
        if (index < 1 || static_cast<size_t>(index) > parameters_.size()) {
            fault_ = "has no parameter " + std::to_string(index);
            return nullptr;
        }
        return &parameters_[static_cast<size_t>(index) - 1];
    }
    /// Copied, since libpq wants a NUL behind it.
    SqlStatement& bind_text(int index, std::string_view text) {
        Parameter* parameter = at(index);
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
    std::vector<Parameter> parameters_;
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

PostgresConnection::PostgresConnection(std::unique_ptr<PostgresSession> session)
    : session_(std::move(session)) {}

PostgresConnection::~PostgresConnection() = default;

Result<std::unique_ptr<PostgresConnection>> PostgresConnection::open(const std::string& place,
                                                                     const PostgresOptions& options) {
    if (Result<void> checked = check_postgres_place(place); !checked) {
        return tl::unexpected(checked.error());
    }
    const Result<Settings> settings = settings_of(place);
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
            return fail(named() + ": preparing: a '?' in the statement has no number of a parameter");
        }
        parameters = std::max(parameters, piece.parameter);
        sql.remove_prefix(static_cast<size_t>(end - sql.data()));
    }
    return std::make_unique<PostgresStatement>(*session_, std::move(pieces), parameters, several);
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
    return store_named(session_->place());
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
