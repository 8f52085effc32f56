#include "core/table_policies.h"

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>

#include "shm/meters.h"
#include "shm/scope_name.h"

namespace apikeyd {

namespace shm = apikey::shm;

namespace {

/// The coarse clock's ticks are up to 10 ms; a window of some of them is not metered by it.
constexpr uint64_t kFineWindow_ns = 100'000'000;

shm::LimitKind kind_of(LimitForm form) {
    switch (form) {
        case LimitForm::kQuotaPerHour:
            return shm::LimitKind::kHour;
        case LimitForm::kQuotaPerDay:
            return shm::LimitKind::kDay;
        case LimitForm::kQuotaPerMonth:
            return shm::LimitKind::kMonth;
        case LimitForm::kRate:
            break;
    }
    return shm::LimitKind::kRate;
}

LimitForm form_of(shm::LimitKind kind) {
    switch (kind) {
        case shm::LimitKind::kHour:
            return LimitForm::kQuotaPerHour;
        case shm::LimitKind::kDay:
            return LimitForm::kQuotaPerDay;
        case shm::LimitKind::kMonth:
            return LimitForm::kQuotaPerMonth;
        case shm::LimitKind::kRate:
            break;
    }
    return LimitForm::kRate;
}

shm::Limit limit_of(const LimitRow& row) {
    shm::Limit limit{};
    limit.kind = kind_of(row.form);
    limit.flags = row.shadow ? shm::kLimitShadow : 0;
    std::copy_n(row.name.data(), std::min(row.name.size(), sizeof limit.name - 1), limit.name);
    if (row.form != LimitForm::kRate) {
        limit.allowance = row.requests;
        return limit;
    }
    limit.interval = shm::rate_interval(row.requests, row.rate_seconds);
    limit.allowance = row.burst * limit.interval;
    limit.burst = row.burst;
    limit.rate_requests = static_cast<uint32_t>(row.requests);
    limit.rate_seconds = row.rate_seconds;
    if (limit.allowance < kFineWindow_ns / shm::kMeterUnit_ns) {
        limit.flags |= shm::kLimitFine;
    }
    return limit;
}

LimitRow row_of(const shm::Limit& limit) {
    LimitRow row;
    row.name.assign(limit.name, strnlen(limit.name, sizeof limit.name));
    row.form = form_of(limit.kind);
    row.requests = limit.kind == shm::LimitKind::kRate ? limit.rate_requests : limit.allowance;
    row.rate_seconds = limit.rate_seconds;
    row.burst = limit.burst;
    row.shadow = (limit.flags & shm::kLimitShadow) != 0;
    return row;
}

std::vector<shm::Limit> limits_of(const std::vector<LimitRow>& rows) {
    std::vector<shm::Limit> limits;
    for (const LimitRow& row : rows) {
        limits.push_back(limit_of(row));
    }
    return limits;
}

std::vector<LimitRow> rows_of(const shm::ListReader<shm::Limit>& list) {
    std::vector<LimitRow> rows;
    for (uint32_t i = 0; i < list.count(); ++i) {
        rows.push_back(row_of(list.get(i)));
    }
    return rows;
}

std::string name_at(const shm::TableView& table, uint32_t reference) {
    return std::string(read_name(table, reference).string());
}

/// The plans of a table by their names.
class PlansOf {
  public:
    explicit PlansOf(const shm::TableView* table) : table_(table) {
        // SYNC plan-named: acquire, for the names; the builder looks at a table that goes on changing.
        const uint64_t used =
            table != nullptr ? table->header().plans_used.load(std::memory_order_acquire) : 0;
        for (uint64_t number = 1; table != nullptr && number < std::min(used, table->plan_count); ++number) {
            bodies_.emplace(read_name(*table, table->plans[number].name).string(),
                            plan_body(*table, static_cast<uint32_t>(number)));
        }
    }
    /// Nothing where it has no such plan, or cannot say it.
    std::optional<shm::ListReader<shm::Limit>> find(std::string_view name) const {
        const auto body = bodies_.find(name);
        return body != bodies_.end() && body->second != 0
                   ? std::optional(shm::ListReader<shm::Limit>(*table_, body->second))
                   : std::nullopt;
    }

  private:
    const shm::TableView* table_;
    boost::unordered_flat_map<std::string_view, uint32_t> bodies_;
};

std::string scope_name(const shm::TableView& table, uint64_t bit) {
    const shm::ScopeName scope = shm::read_value(table.scopes[bit]);
    return {scope.text, strnlen(scope.text, sizeof scope.text)};
}

/// Scopes, plans by `set_plan`, then owners; false when one of them found no room.
template <typename SetPlan>
bool set_all(shm::TableWriter& table, const PolicySet& set, SetPlan set_plan) {
    shm::PolicyWriter& writer = table.policies();
    bool all = true;
    for (const std::string& scope : set.scopes) {
        all = writer.scope(scope) && all;
    }
    for (const PlanRow& plan : set.plans) {
        all = set_plan(plan) && all;
    }
    boost::unordered_flat_set<std::string_view> known;
    for (const OwnerRow& owner : set.owners) {
        known.insert(owner.name);
        all = writer.set_owner(owner.name, owner.plan) && all;
    }
    const shm::TableView& view = table.view();
    for (uint64_t number = 1; number < view.header().owners_used.load(std::memory_order_relaxed); ++number) {
        const std::string name = name_at(view, view.owners[number].name);
        if (!known.contains(name)) {
            all = writer.set_owner(name, "") && all;
        }
    }
    return all;
}

}  // namespace

RowPolicy::RowPolicy(const KeyRow& row) : row_(row), overrides_(limits_of(terms_of(row).overrides)) {
    for (const AddressRangeRow& range : terms_of(row).addresses) {
        shm::AddressRange stored{};
        std::copy(range.address.begin(), range.address.end(), stored.address);
        stored.prefix_bits = range.prefix_bits;
        addresses_.push_back(stored);
    }
}

std::string_view plan_name(const shm::TableView& table, uint32_t plan) {
    return plan != 0 && plan < table.plan_count ? read_name(table, table.plans[plan].name).string()
                                                : std::string_view();
}

shm::PolicyText RowPolicy::text() const {
    const KeyTerms& terms = terms_of(row_);
    return {.scopes = terms.scopes,
            .plan = terms.plan,
            .owner = row_.owner,
            .addresses = addresses_,
            .overrides = overrides_};
}

std::shared_ptr<const KeyTerms> terms_of_policy(const shm::TableView& table, const shm::Policy& policy) {
    KeyTerms terms;
    for (uint64_t bit = 0; bit < table.scope_count; ++bit) {
        if ((policy.scopes[bit / 64] >> bit % 64 & 1) != 0) {
            terms.scopes.push_back(scope_name(table, bit));
        }
    }
    std::sort(terms.scopes.begin(), terms.scopes.end());
    terms.plan = plan_name(table, policy.plan);
    const shm::ListReader<shm::AddressRange> addresses(table, policy.addresses);
    for (uint32_t i = 0; i < addresses.count(); ++i) {
        const shm::AddressRange stored = addresses.get(i);
        AddressRangeRow range;
        std::copy(std::begin(stored.address), std::end(stored.address), range.address.begin());
        range.prefix_bits = stored.prefix_bits;
        terms.addresses.push_back(range);
    }
    terms.overrides = rows_of(shm::ListReader<shm::Limit>(table, policy.overrides));
    return terms.empty() ? nullptr : std::make_shared<const KeyTerms>(std::move(terms));
}

bool set_policies(shm::TableWriter& table, const PolicySet& set, const shm::TableView* from) {
    const PlansOf plans_before(from);
    return set_all(table, set, [&](const PlanRow& plan) {
        const auto before = plans_before.find(plan.name);
        return table.policies().set_plan(plan.name, limits_of(plan.limits), before ? &*before : nullptr);
    });
}

void set_policies_in_superseded(shm::TableWriter& table, const PolicySet& set, const shm::TableView* next) {
    const PlansOf plans_there(next);
    set_all(table, set, [&](const PlanRow& plan) {
        const auto there = plans_there.find(plan.name);
        const bool said_there = next == nullptr || (there && rows_of(*there) == plan.limits);
        if (!said_there ||
            !table.policies().set_plan(plan.name, limits_of(plan.limits), there ? &*there : nullptr)) {
            table.policies().set_plan_elsewhere(plan.name);
        }
        return true;
    });
}

PolicySet policies_of(const shm::TableView& table) {
    PolicySet set;
    const shm::TableHeader& header = table.header();
    const auto used = [](const shm::Word& word, uint64_t capacity) {
        return std::min(word.load(std::memory_order_relaxed), capacity);
    };
    for (uint64_t bit = 0; bit < used(header.scopes_used, table.scope_count); ++bit) {
        std::string name = scope_name(table, bit);
        if (!shm::is_branch(name)) {  // a branch, which the keys bring
            set.scopes.push_back(std::move(name));
        }
    }
    for (uint64_t number = 1; number < used(header.plans_used, table.plan_count); ++number) {
        const uint32_t body = plan_body(table, static_cast<uint32_t>(number));
        if (body != 0 && body != shm::kPlanElsewhere) {
            set.plans.push_back({name_at(table, table.plans[number].name),
                                 rows_of(shm::ListReader<shm::Limit>(table, body))});
        }
    }
    for (uint64_t number = 1; number < used(header.owners_used, table.owner_count); ++number) {
        const uint32_t plan = owner_plan(table, static_cast<uint32_t>(number));
        if (plan != 0 && plan < table.plan_count) {
            set.owners.push_back(
                {name_at(table, table.owners[number].name), std::string(plan_name(table, plan))});
        }
    }
    return set;
}

PolicySet with_plans_of(const shm::TableView& table, PolicySet set,
                        const boost::unordered_flat_set<std::string_view>& names) {
    boost::unordered_flat_set<std::string> known;
    for (const PlanRow& plan : set.plans) {
        known.insert(plan.name);
    }
    const PlansOf plans(&table);
    for (const std::string_view name : names) {
        const auto limits = plans.find(name);
        if (limits && limits->found() && known.insert(std::string(name)).second) {
            set.plans.push_back({std::string(name), rows_of(*limits)});
        }
    }
    return set;
}

uint32_t meter_words_of(const PolicySet& set, const shm::TableView* from) {
    size_t words = 0;
    const PlansOf plans_before(from);
    for (const PlanRow& plan : set.plans) {
        words = std::max(words, plan.limits.size());
        const auto before = plans_before.find(plan.name);
        for (uint32_t i = 0; before && i < before->count(); ++i) {
            words = std::max(words, size_t{before->get(i).word} + 1);
        }
    }
    // As many as the stride has, so that a limit more needs no new generation where there is room.
    return words == 0 ? 0 : words <= 2 ? 2 : shm::kMeterWordsMax;
}

shm::TableGeometry::Policies entries_of(const PolicySet& set) {
    const auto owners = std::count_if(set.owners.begin(), set.owners.end(),
                                      [](const OwnerRow& owner) { return !owner.plan.empty(); });
    return {.policies = 0, .plans = set.plans.size(), .owners = static_cast<uint64_t>(owners)};
}

uint64_t details_bytes_of(const PolicySet& set) {
    uint64_t bytes = 0;
    for (const PlanRow& plan : set.plans) {
        bytes += shm::PolicyWriter::plan_bytes(plan.name, plan.limits.size());
    }
    for (const OwnerRow& owner : set.owners) {
        bytes += shm::DetailsWriter::name_bytes(owner.name);
    }
    return bytes;
}

}  // namespace apikeyd
