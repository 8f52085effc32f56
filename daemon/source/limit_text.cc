#include "source/limit_text.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

#include "base/utf8.h"
#include "shm/meters.h"
#include "shm/scope_name.h"

namespace apikeyd {

namespace {

namespace shm = apikey::shm;

struct Unit {
    std::string_view name;
    uint32_t seconds;
};
constexpr Unit kRateUnits[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}};

struct Period {
    std::string_view name;
    LimitForm form;
};
constexpr Period kPeriods[] = {{"hour", LimitForm::kQuotaPerHour},
                               {"day", LimitForm::kQuotaPerDay},
                               {"month", LimitForm::kQuotaPerMonth}};

/// Of a rate in a second: what it is rounded by is a hundredth at most.
constexpr uint64_t kRateMax_s = 1'250'000;
static_assert(shm::rate_interval(kRateMax_s, 1) == 100);
constexpr uint64_t kWindowMax = uint64_t{1} << 53;
constexpr uint64_t kQuotaMax = 10'000'000'000;
static_assert(kQuotaMax <= shm::QuotaWord::kUsedMask);
constexpr uint64_t kBurstMax = 1'000'000'000;

/// The greatest there is for one that is greater still: out of each range.
std::optional<uint64_t> whole_number(std::string_view text) {
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (text.empty() || end != text.data() + text.size() || error == std::errc::invalid_argument) {
        return std::nullopt;
    }
    return error == std::errc{} ? number : std::numeric_limits<uint64_t>::max();
}

constexpr uint8_t kMappedPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool is_word(std::string_view name, size_t bytes_max, std::string_view punctuation) {
    return !name.empty() && name.size() <= bytes_max && std::all_of(name.begin(), name.end(), [&](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
               punctuation.find(c) != std::string_view::npos;
    });
}

bool is_mapped(const AddressRangeRow& range) {
    return range.prefix_bits >= 96 &&
           std::equal(std::begin(kMappedPrefix), std::end(kMappedPrefix), range.address.begin());
}

}  // namespace

Result<void> parse_rate(std::string_view text, LimitRow& limit) {
    constexpr const char* kWant = "is no rate (want requests/unit with s, min, h or d, e.g. 100/s)";
    const size_t slash = text.find('/');
    const auto requests = whole_number(text.substr(0, slash));
    if (slash == std::string_view::npos || !requests) {
        return fail(kWant);
    }
    const auto* const unit = std::find_if(std::begin(kRateUnits), std::end(kRateUnits), [&](const Unit& one) {
        return one.name == text.substr(slash + 1);
    });
    if (unit == std::end(kRateUnits)) {
        return fail(kWant);
    }
    if (*requests == 0 || *requests > kBurstMax) {
        return fail("is an impossible rate (want 1 to 1000000000 requests)");
    }
    limit.form = LimitForm::kRate;
    limit.requests = *requests;
    limit.rate_seconds = unit->seconds;
    limit.burst = static_cast<uint32_t>(*requests);
    return {};
}

Result<void> parse_quota(std::string_view text, LimitRow& limit) {
    constexpr const char* kWant = "is no quota (want requests/period with hour, day or month, e.g. 1000/day)";
    const size_t slash = text.find('/');
    const auto requests = whole_number(text.substr(0, slash));
    if (slash == std::string_view::npos || !requests) {
        return fail(kWant);
    }
    const auto* const period = std::find_if(std::begin(kPeriods), std::end(kPeriods), [&](const Period& one) {
        return one.name == text.substr(slash + 1);
    });
    if (period == std::end(kPeriods)) {
        return fail(kWant);
    }
    if (*requests > kQuotaMax) {
        return fail("is out of range (want at most 10000000000 requests a period)");
    }
    limit.form = period->form;
    limit.requests = *requests;
    limit.rate_seconds = 0;
    limit.burst = 0;
    return {};
}

Result<void> parse_figure(std::string_view text, LimitRow& limit) {
    const size_t slash = text.find('/');
    const std::string_view unit = slash == std::string_view::npos ? "" : text.substr(slash + 1);
    const auto is_unit = [&](const auto& one) { return one.name == unit; };
    if (std::any_of(std::begin(kPeriods), std::end(kPeriods), is_unit)) {
        return parse_quota(text, limit);
    }
    if (std::any_of(std::begin(kRateUnits), std::end(kRateUnits), is_unit)) {
        return parse_rate(text, limit);
    }
    return fail(
        "is no rate (want requests/unit with s, min, h or d, e.g. 100/s) and no quota (want requests/period "
        "with hour, day or month, e.g. 1000/day)");
}

Result<void> parse_burst(std::string_view text, LimitRow& limit) {
    const auto burst = whole_number(text);
    if (!burst || *burst == 0 || *burst > kBurstMax) {
        return fail("is no burst (want 1 to 1000000000 requests that may come at once)");
    }
    limit.burst = static_cast<uint32_t>(*burst);
    return {};
}

Result<void> check_limit(const LimitRow& limit) {
    if (limit.form != LimitForm::kRate) {
        return {};
    }
    const uint64_t interval = shm::rate_interval(limit.requests, limit.rate_seconds);
    if (limit.requests > kRateMax_s * limit.rate_seconds) {
        return fail("is too fast (want at most 1250000 requests a second)");
    }
    if (limit.burst > kWindowMax / interval) {
        return fail("takes more than two years to let its burst through (want a smaller burst)");
    }
    return {};
}

std::string format_limit(const LimitRow& limit) {
    std::string_view unit = "?";
    for (const Unit& one : kRateUnits) {
        unit = limit.form == LimitForm::kRate && one.seconds == limit.rate_seconds ? one.name : unit;
    }
    for (const Period& one : kPeriods) {
        unit = one.form == limit.form ? one.name : unit;
    }
    return std::to_string(limit.requests) + "/" + std::string(unit);
}

Result<AddressRangeRow> parse_address_range(std::string_view text) {
    constexpr const char* kWant = "is no address (want e.g. 192.0.2.0/24, 2001:db8::/32 or one address)";
    const size_t slash = text.find('/');
    const std::string address(text.substr(0, slash));
    AddressRangeRow range;
    uint64_t bits_max = 128;
    if (address.find('\0') != std::string::npos) {
        return fail(kWant);  // inet_pton() would end there
    }
    if (inet_pton(AF_INET6, address.c_str(), range.address.data()) != 1) {
        std::copy(std::begin(kMappedPrefix), std::end(kMappedPrefix), range.address.begin());
        bits_max = 32;
        if (inet_pton(AF_INET, address.c_str(), range.address.data() + sizeof kMappedPrefix) != 1) {
            return fail(kWant);
        }
    }
    uint64_t bits = bits_max;
    if (slash != std::string_view::npos) {
        const auto given = whole_number(text.substr(slash + 1));
        if (!given || *given > bits_max) {
            return fail("has no length of 0 to " + std::to_string(bits_max) + " behind the slash");
        }
        bits = *given;
    }
    range.prefix_bits = static_cast<uint8_t>(128 - bits_max + bits);
    for (unsigned bit = range.prefix_bits; bit < 128; ++bit) {
        if ((range.address[bit / 8] >> (7 - bit % 8) & 1) != 0) {
            return fail("has bits behind its first " + std::to_string(bits) +
                        " (want the network's address)");
        }
    }
    return range;
}

std::string format_address_range(const AddressRangeRow& range) {
    char text[INET6_ADDRSTRLEN] = "";
    const bool mapped = is_mapped(range);
    const unsigned bits = mapped ? range.prefix_bits - 96u : range.prefix_bits;
    inet_ntop(mapped ? AF_INET : AF_INET6, range.address.data() + (mapped ? sizeof kMappedPrefix : 0), text,
              sizeof text);
    return bits == (mapped ? 32u : 128u) ? std::string(text) : std::string(text) + "/" + std::to_string(bits);
}

const LimitRow* limit_named(const std::vector<LimitRow>& limits, std::string_view name) {
    const auto found =
        std::find_if(limits.begin(), limits.end(), [&](const LimitRow& one) { return one.name == name; });
    return found != limits.end() ? &*found : nullptr;
}

std::optional<std::string> scope_fault(std::string_view name) {
    if (name.empty() || name.size() > kScopeNameBytesMax) {
        return "want 1 to " + std::to_string(kScopeNameBytesMax) + " characters";
    }
    return shm::is_scope_name(name)
               ? std::nullopt
               : std::optional<std::string>(
                     "want words of a-z, 0-9, _ and - with dots between them, the last one may be *");
}

std::optional<std::string> plan_name_fault(std::string_view name) {
    return is_word(name, kPlanNameBytesMax, "_-.")
               ? std::nullopt
               : std::optional<std::string>("want 1 to " + std::to_string(kPlanNameBytesMax) +
                                            " characters a-z, 0-9, _, - and .");
}

std::optional<std::string> owner_name_fault(std::string_view name) {
    return !name.empty() && name.size() <= kOwnerBytesMax && !has_control(name)
               ? std::nullopt
               : std::optional<std::string>("want 1 to " + std::to_string(kOwnerBytesMax) +
                                            " bytes of plain text");
}

std::optional<std::string> limit_name_fault(std::string_view name) {
    return is_word(name, kLimitNameBytesMax, "_-")
               ? std::nullopt
               : std::optional<std::string>("want 1 to " + std::to_string(kLimitNameBytesMax) +
                                            " characters a-z, 0-9, _ and -");
}

std::optional<std::string> terms_fault(const KeyTerms& terms, const PolicySet& set) {
    const auto plan = std::find_if(set.plans.begin(), set.plans.end(),
                                   [&](const PlanRow& one) { return one.name == terms.plan; });
    return terms_fault(terms, plan != set.plans.end() ? &*plan : nullptr, set.scopes);
}

std::optional<std::string> terms_fault(const KeyTerms& terms, const PlanRow* plan,
                                       const std::vector<std::string>& scopes) {
    if (!terms.plan.empty() && plan == nullptr) {
        return "plan: '" + terms.plan + "' is defined nowhere (want it under plans:)";
    }
    for (const LimitRow& limit : terms.overrides) {
        const auto replaced = plan != nullptr ? limit_named(plan->limits, limit.name) : nullptr;
        if (replaced == nullptr) {
            return "limits: " + limit.name + " is no limit of the key's plan (it takes the place of one)";
        }
        if (replaced->form != limit.form) {
            return "limits: " + limit.name + " is " + format_limit(*replaced) +
                   " in the key's plan (want another figure of the same kind and period)";
        }
    }
    for (const std::string& scope : terms.scopes) {
        const bool covers = std::any_of(scopes.begin(), scopes.end(), [&](const std::string& one) {
            return shm::scope_covers(scope, one);
        });
        if (!covers) {
            return "scopes: '" + scope + "' is defined nowhere (want it under scopes:)";
        }
    }
    return std::nullopt;
}

}  // namespace apikeyd
