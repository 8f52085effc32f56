// What keys may do, as a source of record says it: scopes, plans with their limits, owners.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace apikeyd {

enum class LimitForm : uint8_t { kRate, kQuotaPerHour, kQuotaPerDay, kQuotaPerMonth };

/// One named limit of a plan: so many requests in so many seconds, or in a calendar period of UTC.
struct LimitRow {
    std::string name;
    LimitForm form = LimitForm::kRate;
    uint64_t requests = 0;  ///< in rate_seconds, or a period
    uint32_t rate_seconds = 0;
    uint32_t burst = 0;   ///< of a rate: requests that may come at once; not 0
    bool shadow = false;  ///< counts what it would refuse, and refuses nothing

    friend bool operator==(const LimitRow&, const LimitRow&) = default;
};

/// nullptr when there is none.
const LimitRow* limit_named(const std::vector<LimitRow>& limits, std::string_view name);

struct PlanRow {
    std::string name;
    std::vector<LimitRow> limits;

    friend bool operator==(const PlanRow&, const PlanRow&) = default;
};

/// An account. The limits of its plan are shared by all its keys, which may have plans of their own besides.
struct OwnerRow {
    std::string name;
    std::string plan;  ///< may be empty

    friend bool operator==(const OwnerRow&, const OwnerRow&) = default;
};

/// Everything of a source that is not a key. Names are unique.
struct PolicySet {
    std::vector<std::string> scopes = {};  ///< what a server may ask for
    std::vector<PlanRow> plans = {};
    std::vector<OwnerRow> owners = {};

    friend bool operator==(const PolicySet&, const PolicySet&) = default;
};

/// Addresses that agree in the first `prefix_bits`; IPv4 as ::ffff:a.b.c.d. Bits behind them are 0.
struct AddressRangeRow {
    std::array<uint8_t, 16> address{};
    uint8_t prefix_bits = 0;

    friend bool operator==(const AddressRangeRow&, const AddressRangeRow&) = default;
};

/// What one key may do beyond being valid. Many keys share one of these.
struct KeyTerms {
    std::vector<std::string> scopes = {};         ///< granted; sorted, each once
    std::string plan = {};                        ///< may be empty
    std::vector<AddressRangeRow> addresses = {};  ///< from where; empty: anywhere
    std::vector<LimitRow> overrides = {};         ///< in place of the plan's limits of the same name and form

    bool empty() const { return scopes.empty() && plan.empty() && addresses.empty() && overrides.empty(); }
    friend bool operator==(const KeyTerms&, const KeyTerms&) = default;
};

inline constexpr std::size_t kScopesMax = 384;  ///< of a key set, with the branches that are granted
inline constexpr std::size_t kScopeNameBytesMax = 63;
inline constexpr std::size_t kPlanNameBytesMax = 63;
inline constexpr std::size_t kOwnerBytesMax = 255;
inline constexpr std::size_t kLimitNameBytesMax = 15;
inline constexpr std::size_t kLimitsMax = 6;       ///< of a plan
inline constexpr std::size_t kAddressesMax = 64;   ///< of a key
inline constexpr std::size_t kPlansMax = 100'000;  ///< of a key set
inline constexpr std::size_t kOwnersMax = 1'000'000;

/// Why a key cannot have these terms where `set` is what else the source says; nullopt when it can.
std::optional<std::string> terms_fault(const KeyTerms& terms, const PolicySet& set);
/// The same for who has found the terms' plan; nullptr when it is defined nowhere.
std::optional<std::string> terms_fault(const KeyTerms& terms, const PlanRow* plan,
                                       const std::vector<std::string>& scopes);

/// What is wanted of the name of a scope (shm/scope_name.h), a plan, an owner, a limit; nullopt when it is
/// one.
std::optional<std::string> scope_fault(std::string_view name);
std::optional<std::string> plan_name_fault(std::string_view name);
std::optional<std::string> owner_name_fault(std::string_view name);
std::optional<std::string> limit_name_fault(std::string_view name);

}  // namespace apikeyd
