#include "source/postgres_fleet.h"

#include <utility>

#include "postgres/connection.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading what its hosts told";
constexpr std::string_view kDoingForget = "forgetting a host";

/// What a host told of another server or another copy says nothing of this one's transactions; and of rows
/// that are deleted nobody knows whether it had them.
constexpr std::string_view kHostsSql =
    "SELECT h.name, h.version, greatest(0, extract(epoch FROM clock_timestamp() - h.told) * 1000)::bigint, "
    "(clock_timestamp() - h.told > h.silent_ms_max * interval '1 ms')::int, "
    "CASE WHEN h.server = apikeyd.server_identity() "
    "AND (SELECT trimmed FROM apikeyd.store) < pg_snapshot_xmin(h.applied) THEN (SELECT count(*) FROM "
    "apikeyd.changes c "
    "WHERE c.seq <= ?1::bigint AND c.xid >= pg_snapshot_xmin(h.applied) "
    "AND NOT pg_visible_in_snapshot(c.xid, h.applied)) END FROM apikeyd.hosts h ORDER BY h.name";

}  // namespace

struct Fleet::Impl {
    std::unique_ptr<PostgresConnection> connection;
    SqlStatementPtr newest, hosts, forget;
};

Fleet::Fleet(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Fleet::~Fleet() = default;

Result<std::unique_ptr<Fleet>> Fleet::open(const std::string& place) {
    auto connection = PostgresConnection::open(place);
    if (!connection) {
        return tl::unexpected(connection.error());
    }
    auto impl = std::make_unique<Impl>();
    if (const Result<void> prepared =
            prepare(**connection, {{&impl->newest, "SELECT coalesce(max(seq), 0) FROM apikeyd.changes"},
                                   {&impl->hosts, kHostsSql},
                                   {&impl->forget, "DELETE FROM apikeyd.hosts WHERE name = ?1"}});
        !prepared) {
        return tl::unexpected(prepared.error());
    }
    impl->connection = *std::move(connection);
    return std::unique_ptr<Fleet>(new Fleet(std::move(impl)));
}

Result<int64_t> Fleet::newest() {
    const SqlResetGuard guard(*impl_->newest);
    if (impl_->newest->step() != SqlStep::kRow) {
        return tl::unexpected(impl_->connection->last_error(kDoing));
    }
    return impl_->newest->column_int(0);
}

Result<std::vector<FleetHost>> Fleet::hosts(int64_t newest) {
    SqlStatement& rows = *impl_->hosts;
    const SqlResetGuard guard(rows);
    std::vector<FleetHost> hosts;
    SqlStep step = rows.bind(1, newest).step();
    for (; step == SqlStep::kRow; step = rows.step()) {
        FleetHost host{.name = std::string(rows.column_text(0)),
                       .version = std::string(rows.column_text(1)),
                       .told_ms_ago = static_cast<uint64_t>(rows.column_int(2)),
                       .silent = rows.column_int(3) != 0};
        if (!rows.column_is_null(4)) {
            host.behind = static_cast<uint64_t>(rows.column_int(4));
        }
        hosts.push_back(std::move(host));
    }
    if (step == SqlStep::kFailed) {
        return tl::unexpected(impl_->connection->last_error(kDoing));
    }
    return hosts;
}

Result<bool> Fleet::forget(const std::string& name) {
    const SqlResetGuard guard(*impl_->forget);
    if (impl_->forget->bind(1, name).step() == SqlStep::kFailed) {
        return tl::unexpected(impl_->connection->last_error(kDoingForget));
    }
    return impl_->forget->rows_changed() > 0;
}

}  // namespace apikeyd
