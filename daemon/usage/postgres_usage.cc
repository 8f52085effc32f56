#include "usage/postgres_usage.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "postgres/connection.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "sending usage";
constexpr int64_t kRefused = -1;

constexpr std::string_view kIsThereSql =
    "SELECT (to_regprocedure('apikeyd.send_usage(text,text,bytea,bigint,bigint[],text[],bigint[],bigint[],"
    "bigint[],smallint[],bigint[])') IS NOT NULL)::int";
constexpr std::string_view kSendSql =
    "SELECT apikeyd.send_usage(?1, ?2, ?3, ?4::bigint, ?5::bigint[], ?6::text[], ?7::bigint[], ?8::bigint[], "
    "?9::bigint[], ?10::smallint[], ?11::bigint[])";

/// Any other is no key's of a fleet, whose keys come from its database; and needs no place in an array's
/// text.
bool is_key_id(std::string_view id) {
    return !id.empty() && std::all_of(id.begin(), id.end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    });
}

/// An array as PostgreSQL reads it.
class ArrayText {
  public:
    void add(std::string_view element) {
        text_ += text_.size() > 1 ? "," : "";
        text_ += '"';
        text_ += element;
        text_ += '"';
    }
    void add(int64_t number) { add(std::to_string(number)); }
    void add(uint64_t number) { add(std::to_string(number)); }
    std::string end() && { return std::move(text_) + '}'; }

  private:
    std::string text_ = "{";
};

}  // namespace

struct PostgresUsage::Impl {
    std::string place;
    ServingHost host;
    /// Relaxed: a flag that is looked at every 100 ms, and nothing goes with it.
    std::shared_ptr<std::atomic<bool>> stopping = std::make_shared<std::atomic<bool>>(false);
    std::unique_ptr<PostgresConnection> connection = nullptr;

    Result<void> connect() {
        if (connection != nullptr && !connection->broken()) {
            return {};
        }
        connection.reset();
        PostgresOptions options;
        options.stopping = stopping;
        auto opened = PostgresConnection::open(place, options);
        if (!opened) {
            return tl::unexpected(opened.error());
        }
        const Result<SqlStatementPtr> asked = (*opened)->prepare(kIsThereSql);
        if (!asked) {
            return tl::unexpected(asked.error());
        }
        if ((*asked)->step() != SqlStep::kRow) {
            return tl::unexpected((*opened)->last_error(kDoing));
        }
        if ((*asked)->column_int(0) == 0) {
            return fail((*opened)->named() +
                        ": has no tables for usage; have the database's owner run "
                        "share/apikeyd/postgres_usage.sql of this release in it with psql");
        }
        connection = *std::move(opened);
        return {};
    }
};

PostgresUsage::PostgresUsage(std::string place, ServingHost host)
    : impl_(std::make_unique<Impl>(Impl{std::move(place), std::move(host)})) {}
PostgresUsage::~PostgresUsage() = default;

Result<uint64_t> PostgresUsage::send(const UsageBatch& batch) {
    if (Result<void> connected = impl_->connect(); !connected) {
        return tl::unexpected(connected.error());
    }
    const Result<SqlStatementPtr> prepared = impl_->connection->prepare(kSendSql);
    if (!prepared) {
        return tl::unexpected(prepared.error());
    }
    ArrayText starts, ids, allowed, denied, code_starts, codes, totals;
    for (const KeyHour& one : batch.keys) {
        if (is_key_id(one.key_id)) {
            starts.add(one.start_s);
            ids.add(one.key_id);
            allowed.add(one.allowed);
            denied.add(one.denied);
        }
    }
    for (const CodeHour& one : batch.codes) {
        code_starts.add(one.start_s);
        codes.add(int64_t{one.code});
        totals.add(one.total);
    }
    SqlStatement& row = **prepared;
    row.bind(1, impl_->host.name).bind(2, impl_->host.place_id);
    row.bind(3, batch.uid).bind(4, static_cast<int64_t>(batch.number));
    // Texts are copied.
    row.bind(5, std::move(starts).end()).bind(6, std::move(ids).end()).bind(7, std::move(allowed).end());
    row.bind(8, std::move(denied).end()).bind(9, std::move(code_starts).end());
    row.bind(10, std::move(codes).end()).bind(11, std::move(totals).end());
    if (row.step() != SqlStep::kRow) {
        return tl::unexpected(impl_->connection->last_error(kDoing));
    }
    if (row.column_int(0) == kRefused) {
        return fail(
            impl_->connection->named() +
            ": another instance of apikeyd sent for this usage store less than ten minutes ago; where it is "
            "a copy of that one's, stop apikeyd, move the file away and start it again; where this host was "
            "booted anew, wait");
    }
    return static_cast<uint64_t>(row.column_int(0));
}

void PostgresUsage::stop() {
    impl_->stopping->store(true, std::memory_order_relaxed);
}

}  // namespace apikeyd
