#include "usage/fleet_usage.h"

#include "postgres/connection.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading usage";

std::string sum_of(const std::string& column) {
    return "least(sum(u." + column + "), 9223372036854775807)::bigint";
}

/// Each operator by the very types that pg_catalog has it for: no schema of the search_path has a better one.
std::string statement_of(const FleetUsageQuery& query) {
    using Of = FleetUsageQuery::Of;
    const bool codes = query.of == Of::kCode;
    const std::string name = query.of == Of::kKey     ? "u.key_id"
                             : query.of == Of::kOwner ? "coalesce(k.owner, '')"
                             : query.of == Of::kHost  ? "s.host"
                                                      : "u.code";
    const std::string start =
        query.step_s == 0 ? "0" : "u.start_s - u.start_s % " + std::to_string(query.step_s) + "::bigint";
    std::string sql = "SELECT " + start + ", " + name + ", ";
    sql += codes ? sum_of("total") + ", 0 FROM apikeyd.usage_codes u"
                 : sum_of("allowed") + ", " + sum_of("denied") +
                       " FROM apikeyd.usage_keys u JOIN apikeyd.usage_stores s USING (store) "
                       "LEFT JOIN apikeyd.keys k ON k.id = u.key_id";
    sql += " WHERE u.start_s >= ?1::bigint AND u.start_s < ?2::bigint";
    if (!codes) {
        sql +=
            " AND (?3::text IS NULL OR u.key_id = ?3) AND (?4::text IS NULL OR coalesce(k.owner, '') = ?4)";
    }
    return sql + " GROUP BY 1, 2 ORDER BY 1, 2";
}

}  // namespace

Result<std::vector<FleetUsageSum>> read_fleet_usage(const std::string& place, const FleetUsageQuery& query) {
    const auto connection = PostgresConnection::open(place);
    if (!connection) {
        return tl::unexpected(connection.error());
    }
    const Result<SqlStatementPtr> prepared = (*connection)->prepare(statement_of(query));
    if (!prepared) {
        return tl::unexpected(prepared.error());
    }
    SqlStatement& rows = **prepared;
    rows.bind(1, query.since_s).bind(2, query.until_s);
    if (query.of != FleetUsageQuery::Of::kCode) {
        const auto bind = [&](int index, const std::optional<std::string>& text) {
            text ? rows.bind(index, *text) : rows.bind(index, nullptr);
        };
        bind(3, query.key_id);
        bind(4, query.owner);
    }
    std::vector<FleetUsageSum> sums;
    SqlStep step = rows.step();
    for (; step == SqlStep::kRow; step = rows.step()) {
        sums.push_back({rows.column_int(0), std::string(rows.column_text(1)),
                        static_cast<uint64_t>(rows.column_int(2)),
                        static_cast<uint64_t>(rows.column_int(3))});
    }
    if (step == SqlStep::kFailed) {
        return tl::unexpected((*connection)->last_error(kDoing));
    }
    return sums;
}

}  // namespace apikeyd
