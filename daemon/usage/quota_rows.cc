#include "usage/quota_rows.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "shm/quota_period.h"

namespace apikeyd {

using apikey::shm::LimitKind;

namespace {

/// The larger of period and count wins: what several generations say of one quota comes in any order, and an
/// older one's word may be behind. But a period further ahead than the next, ?7, is of a clock that was set
/// back since; it becomes the present one, with what was counted, as takers make it in a meter word.
constexpr std::string_view kPutSql =
    "INSERT INTO quotas(holder, plan, limit_name, kind, period, used) VALUES(?1, ?2, ?3, ?4, ?5, ?6) "
    "ON CONFLICT(holder, plan, limit_name, kind) DO UPDATE SET period = excluded.period, "
    "used = CASE WHEN period < excluded.period THEN excluded.used ELSE max(used, excluded.used) END "
    "WHERE period < excluded.period OR period > ?7 OR (period = excluded.period AND used < excluded.used)";
/// With the present numbers of hour, day and month.
constexpr std::string_view kAllSql =
    "SELECT holder, plan, limit_name, kind, period, used FROM quotas "
    "WHERE period >= CASE kind WHEN 1 THEN ?1 WHEN 2 THEN ?2 ELSE ?3 END";
constexpr std::string_view kForgetPastSql =
    "DELETE FROM quotas WHERE period < CASE kind WHEN 1 THEN ?1 WHEN 2 THEN ?2 ELSE ?3 END";
static_assert(static_cast<int>(LimitKind::kHour) == 1 && static_cast<int>(LimitKind::kDay) == 2);

int64_t present(LimitKind kind, int64_t now_s) {
    return static_cast<int64_t>(period_of(kind, static_cast<uint64_t>(now_s) * 1'000'000'000));
}

void bind_present(Statement& statement, int64_t now_s) {
    statement.bind(1, present(LimitKind::kHour, now_s))
        .bind(2, present(LimitKind::kDay, now_s))
        .bind(3, present(LimitKind::kMonth, now_s));
}

std::span<const uint8_t> bytes_of(std::string_view text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string_view text_of(std::span<const uint8_t> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

Result<QuotaRows> QuotaRows::prepare(const Database& database) {
    QuotaRows rows;
    Result<void> prepared = database.prepare(
        {{&rows.put_, kPutSql}, {&rows.all_, kAllSql}, {&rows.forget_past_, kForgetPastSql}});
    if (!prepared) {
        return tl::unexpected(std::move(prepared.error()));
    }
    return rows;
}

int QuotaRows::put(std::span<const QuotaCount> counts, int64_t now_s) {
    // In the order of the tree, so that a page is visited once however many rows there are.
    std::vector<size_t> order(counts.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return std::tuple(!counts[a].of_owner, counts[a].holder) <
               std::tuple(!counts[b].of_owner, counts[b].holder);
    });
    for (const size_t index : order) {
        const QuotaCount& count = counts[index];
        const LimitKind kind = count.name->kind;
        count.of_owner ? put_.bind(1, count.holder) : put_.bind(1, bytes_of(count.holder));
        const int rc = put_.bind(2, count.name->plan)
                           .bind(3, count.name->limit)
                           .bind(4, static_cast<int64_t>(kind))
                           .bind(5, int64_t{count.period})
                           .bind(6, static_cast<int64_t>(count.used))
                           .bind(7, present(kind, now_s) + 1)
                           .run();
        if (rc != SQLITE_OK) {
            return rc;
        }
    }
    return SQLITE_OK;
}

int QuotaRows::for_each(int64_t now_s, const std::function<void(const QuotaCount&)>& visit) {
    const ResetGuard guard(all_);
    bind_present(all_, now_s);
    int rc = all_.step();
    for (; rc == SQLITE_ROW; rc = all_.step()) {
        const QuotaName name{std::string(all_.column_text(1)), std::string(all_.column_text(2)),
                             static_cast<LimitKind>(all_.column_int(3))};
        QuotaCount count;
        count.name = &name;
        count.of_owner = all_.column_is_text(0);
        count.holder = count.of_owner ? all_.column_text(0) : text_of(all_.column_blob(0));
        count.period = static_cast<uint32_t>(all_.column_int(4));
        count.used = static_cast<uint64_t>(all_.column_int(5));
        visit(count);
    }
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int QuotaRows::forget_past(int64_t now_s) {
    bind_present(forget_past_, now_s);
    return forget_past_.run();
}

}  // namespace apikeyd
