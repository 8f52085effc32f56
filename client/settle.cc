#include "client/settle.h"

#include "client/single_rate.h"

namespace apikey::client {
namespace {

Decided answer(Terms* out, apikey_code code, uint32_t flags = 0) {
    out->code = code;
    out->flags = flags;
    return Decided::kYes;
}

uint32_t count_shadows(const Moment& moment, const Bill& bill) {
    uint32_t flags = 0;
    if (bill.shadowed(true)) {
        count_answers(moment, APIKEY_SHADOW_RATE_LIMITED, 1);
        flags = APIKEY_FLAG_SHADOW;
    }
    if (bill.shadowed(false)) {
        count_answers(moment, APIKEY_SHADOW_USAGE_EXCEEDED, 1);
        flags = APIKEY_FLAG_SHADOW;
    }
    return flags;
}

Decided spend_by_bill(const apikey_client& client, const Moment& moment, const KeyPlace& place,
                      const Asked& asked, Bill::Owed* owed, Terms* out) {
    Bill bill;
    Spent spent = bill.draw_up(*moment.mapping, place);
    if (spent == Spent::kNotMetered) {
        return client.metering == APIKEY_METERING_OPTIONAL
                   ? answer(out, APIKEY_VALID, APIKEY_FLAG_NOT_METERED)
                   : answer(out, APIKEY_UNAVAILABLE);
    }
    if (spent == Spent::kAll) {
        spent = bill.spend(asked.cost, moment.now_ns, owed);
        if ((spent == Spent::kMoved || spent == Spent::kMovedOwing) && bill.mend_scribbled(*moment.mapping))
            [[unlikely]] {
            spent = bill.spend(asked.cost, moment.now_ns, owed);
        }
    }
    if (asked.limits != nullptr &&
        (spent == Spent::kAll || spent == Spent::kRateLimited || spent == Spent::kUsageExceeded)) {
        bill.tell(asked.cost, moment.now_ns, spent, asked.limits);
    }
    switch (spent) {
        case Spent::kAll:
            return answer(out, APIKEY_VALID, count_shadows(moment, bill));
        case Spent::kRateLimited:
            return answer(out, APIKEY_RATE_LIMITED);
        case Spent::kUsageExceeded:
            return answer(out, APIKEY_USAGE_EXCEEDED);
        case Spent::kMoved:
            return Decided::kInNext;
        case Spent::kMovedOwing:
            return Decided::kOwing;
        case Spent::kStale:
            return Decided::kAgain;
        default:
            return Decided::kInCurrent;
    }
}

/// The general way, whatever the policy and the request say.
[[gnu::noinline]] Decided settle_all_terms(const apikey_client& client, const Moment& moment,
                                           const Presented& key, const Asked& asked, Bill::Owed* owed,
                                           Terms* out) {
    const shm::TableView& table = moment.mapping->generation.table;
    shm::Policy policy;
    shm::read_policy(table, key.found.meta, &policy);
    const apikey_code code = check_terms(client, table, key.found.meta, policy, asked);
    return code == APIKEY_VALID && (policy.plan != 0 || policy.owner != 0)
               ? spend_by_bill(client, moment, place_of(key, policy), asked, owed, out)
               : answer(out, code);
}

}  // namespace

Decided settle_terms(const apikey_client& client, const Moment& moment, const Presented& key,
                     const Asked& asked, Bill::Owed* owed, Terms* out) {
    const shm::Policy& policy = shm::stored_policy(moment.mapping->generation.table, key.found.meta);
    if (!moment.asks && shm::read_value(policy.addresses) == 0) {
        const Spent spent =
            spend_single_rate(*moment.mapping, key.found, policy, asked.cost, moment.now_ns, asked.limits);
        if (spent != Spent::kByBill) {
            return answer(out, spent == Spent::kAll ? APIKEY_VALID : APIKEY_RATE_LIMITED);
        }
    }
    return settle_all_terms(client, moment, key, asked, owed, out);
}

}  // namespace apikey::client
