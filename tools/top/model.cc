#include "tools/top/model.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "apikey/apikey.h"

namespace apikeyd::top {

namespace {

using apikey::shm::AttachResult;
using apikey::shm::ControlState;

/// A daemon beats every second; a busy machine may let it miss some.
constexpr uint64_t kSilentAfter_ms = 10'000;

const GenerationCounts* find(const Look& look, uint32_t number) {
    const auto found = std::find_if(look.generations.begin(), look.generations.end(),
                                    [&](const GenerationCounts& one) { return one.number == number; });
    return found != look.generations.end() ? &*found : nullptr;
}

bool same_instance(const std::optional<Look>& before, const Look& after) {
    return before && before->attached == AttachResult::kOk && before->instance == after.instance;
}

}  // namespace

double plausible_rate(uint64_t count, double seconds) {
    const double rate = static_cast<double>(count) / seconds;
    return rate <= kPlausible_per_s ? rate : 0;
}

CodeRates rates_between(const std::optional<Look>& before, const Look& after) {
    CodeRates rates;
    if (!same_instance(before, after) || after.attached != AttachResult::kOk ||
        after.monotonic_ns <= before->monotonic_ns) {
        rates.note = before ? RateNote::kReplaced : RateNote::kFirst;
        return rates;
    }
    rates.seconds = static_cast<double>(after.monotonic_ns - before->monotonic_ns) / 1e9;
    rates.note =
        before->health.generation == after.health.generation ? RateNote::kNone : RateNote::kGeneration;
    for (const GenerationCounts& now : after.generations) {
        const GenerationCounts* then = find(*before, now.number);
        if (then == nullptr && now.number <= before->newest) {
            continue;
        }
        for (size_t code = 0; code < now.codes.size(); ++code) {
            const uint64_t had = then != nullptr ? then->codes[code] : 0;
            const uint64_t more = now.codes[code] > had ? now.codes[code] - had : 0;
            rates.by_code[code] += plausible_rate(more, rates.seconds);
        }
    }
    // Shadow codes stand beside the answer that the request was given.
    for (size_t code = 0; code <= APIKEY_UNAVAILABLE; ++code) {
        rates.total += rates.by_code[code];
    }
    return rates;
}

double sort_value(const KeyRate& key, Sort sort) {
    return sort == Sort::kAllowed  ? key.allowed
           : sort == Sort::kDenied ? key.denied
                                   : key.allowed + key.denied;
}

void keep_busiest(std::vector<KeyRate>* keys, Sort sort, size_t count) {
    std::sort(keys->begin(), keys->end(), [](const KeyRate& a, const KeyRate& b) { return a.id < b.id; });
    std::vector<KeyRate> merged;
    for (KeyRate& key : *keys) {
        if (!merged.empty() && merged.back().id == key.id) {
            merged.back().allowed += key.allowed;
            merged.back().denied += key.denied;
        } else {
            merged.push_back(std::move(key));
        }
    }
    // Stable: keys of one rate stand by their id, and do not jump from look to look.
    std::stable_sort(merged.begin(), merged.end(), [&](const KeyRate& a, const KeyRate& b) {
        return sort_value(a, sort) > sort_value(b, sort);
    });
    merged.resize(std::min(merged.size(), count));
    *keys = std::move(merged);
}

uint64_t age_ms(uint64_t then_ns, uint64_t now_ns) {
    return now_ns > then_ns ? (now_ns - then_ns) / 1'000'000 : 0;
}

const char* daemon_word(const Look& look) {
    switch (look.health.state) {
        case ControlState::kStopped:
            return "stopped";
        case ControlState::kSuperseded:
            return "superseded";
        case ControlState::kStarting:
        case ControlState::kServing:
            break;
    }
    if (age_ms(look.health.heartbeat_ns, look.realtime_ns) > kSilentAfter_ms) {
        return "silent";
    }
    return look.health.state == ControlState::kServing ? "serving" : "starting";
}

uint64_t count_mappings(const std::string& locks, uint64_t device, uint64_t inode) {
    char place[64];
    std::snprintf(place, sizeof place, "%02x:%02x:%lu", major(device), minor(device),
                  static_cast<unsigned long>(inode));
    uint64_t count = 0;
    std::istringstream lines(locks);
    for (std::string line; std::getline(lines, line);) {
        // 1: OFDLCK ADVISORY  READ -1 00:19:1234 0 EOF
        std::istringstream words(line);
        std::string number, kind, advisory, mode, pid, file;
        words >> number >> kind >> advisory >> mode >> pid >> file;
        count += kind == "OFDLCK" && mode == "READ" && file == place ? 1 : 0;
    }
    return count;
}

}  // namespace apikeyd::top
