// What a limit of a plan means, and what is left of it: for requests, and for those who only look.

#pragma once

#include <cstring>

#include "apikey/apikey.h"
#include "shm/meters.h"
#include "shm/policy_reader.h"
#include "shm/quota_period.h"

namespace apikey::client {

inline bool is_rate(const shm::Limit& limit) {
    return limit.kind == shm::LimitKind::kRate;
}

inline shm::Rate rate_of(const shm::Limit& limit) {
    return {limit.tag, limit.interval, limit.allowance};
}
inline shm::Quota quota_of(const shm::Limit& limit) {
    return {limit.tag, limit.allowance};
}

/// The key's own figures in place of the plan's.
inline void override_figures(const shm::TableView& table, const shm::Policy& policy, shm::Limit* limit) {
    const shm::ListReader<shm::Limit> overrides(table, policy.overrides);
    for (uint32_t i = 0; i < overrides.count(); ++i) {
        const shm::Limit own = overrides.get(i);
        if (own.tag == limit->tag && own.kind == limit->kind &&
            std::memcmp(own.name, limit->name, sizeof own.name) == 0) {
            const uint8_t word = limit->word;
            *limit = own;
            limit->word = word;
        }
    }
}

inline uint64_t to_ms(uint64_t ns) {
    return (ns + 999'999) / 1'000'000;
}

inline apikey_limit named_state(const shm::Limit& limit) {
    apikey_limit state{};
    std::memcpy(state.name, limit.name, sizeof limit.name);
    state.name[sizeof limit.name - 1] = '\0';
    return state;
}

/// What a rate has left, of which `ahead` is taken.
inline apikey_limit state_of_rate(const shm::Limit& limit, uint64_t ahead, uint32_t cost, bool refused) {
    apikey_limit state = named_state(limit);
    const uint64_t window = limit.allowance;
    uint64_t need = 0;
    const bool ever = !__builtin_mul_overflow(uint64_t{cost}, limit.interval, &need) && need <= window;
    state.allowance = limit.burst;
    state.remaining = ahead < window ? (window - ahead) / limit.interval : 0;
    state.reset_ms = to_ms(ahead * shm::kMeterUnit_ns);
    if (refused) {
        state.retry_after_ms =
            ever ? to_ms((ahead + need > window ? ahead + need - window : 0) * shm::kMeterUnit_ns)
                 : UINT64_MAX;
    }
    return state;
}

/// What a quota has left, of which `used` is taken.
inline apikey_limit state_of_quota(const shm::Limit& limit, uint64_t used, uint32_t cost, uint64_t now_ns,
                                   bool refused) {
    apikey_limit state = named_state(limit);
    state.allowance = limit.allowance;
    state.remaining = used < limit.allowance ? limit.allowance - used : 0;
    state.reset_ms = to_ms(period_end_ns(limit.kind, now_ns) - now_ns);
    if (refused) {
        state.retry_after_ms = cost <= limit.allowance ? state.reset_ms : UINT64_MAX;
    }
    return state;
}

}  // namespace apikey::client
