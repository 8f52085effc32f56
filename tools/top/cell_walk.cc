#include "tools/top/cell_walk.h"

#include <algorithm>
#include <new>
#include <optional>

#include "base/clock.h"
#include "client/limit_state.h"

namespace apikeyd::top {

namespace {

namespace client = apikey::client;
namespace shm = apikey::shm;

/// The `count` first by `before` of all that were added, in bounded memory.
template <typename Value, typename Before>
class First {
  public:
    First(size_t count, Before before) : count_(count), before_(before) {}
    void add(Value value) {
        values_.push_back(std::move(value));
        if (values_.size() >= 2 * count_ + 64) {
            cut();
        }
    }
    std::vector<Value> take() {
        cut();
        std::sort(values_.begin(), values_.end(), before_);
        return std::move(values_);
    }

  private:
    void cut() {
        if (values_.size() > count_) {
            std::nth_element(values_.begin(), values_.begin() + static_cast<ptrdiff_t>(count_), values_.end(),
                             before_);
            values_.resize(count_);
        }
    }
    size_t count_;
    Before before_;
    std::vector<Value> values_;
};

std::string text_of(const char* text, uint32_t bytes) {
    return text != nullptr ? std::string(text, bytes) : std::string();
}

std::string name_at(const shm::TableView& table, uint32_t reference) {
    return std::string(shm::read_name(table, reference).string());
}

/// Who the key in a slot is; false where none is told.
bool name_key(const shm::TableView& table, uint64_t index, KeyRate* key) {
    uint64_t meta = 0;
    shm::DetailView detail;
    if (!shm::see_slot(table, index, &meta, &detail)) {
        return false;
    }
    key->id = text_of(detail.id, detail.id_bytes);
    key->owner = text_of(detail.owner, detail.owner_bytes);
    key->name = text_of(detail.name, detail.name_bytes);
    shm::Policy policy;
    shm::read_policy(table, meta, &policy);
    key->plan = policy.plan != 0 && policy.plan < table.plan_count
                    ? name_at(table, shm::read_value(table.plans[policy.plan].name))
                    : std::string();
    return true;
}

/// A limit that is nearly used up, before it is told whose it is.
struct Near {
    apikey_limit state;
    double used;
    uint64_t index;  ///< of the slot, or of the owner
    bool of_owner;
    bool rate;
    bool shadow;
};

/// What a meter's word says of its limit; nullopt where little is used, or the word has moved on.
std::optional<Near> look_at(uint64_t word, const shm::Limit& limit, uint64_t now_ns) {
    const bool rate = client::is_rate(limit);
    if ((word & shm::kMovedBit) != 0 || limit.allowance == 0 || (rate && limit.interval == 0)) {
        return std::nullopt;
    }
    Near near{};
    near.rate = rate;
    near.shadow = (limit.flags & shm::kLimitShadow) != 0;
    uint64_t taken = 0;
    if (rate) {
        uint64_t now = now_ns / shm::kMeterUnit_ns;
        const auto clock = [] { return realtime_now_ns() / shm::kMeterUnit_ns; };
        taken = shm::meters::see_rate(word, client::rate_of(limit), 1, &now, clock).ahead;
    } else {
        uint64_t period = shm::period_of(limit.kind, now_ns);
        const auto clock = [&] { return shm::period_of(limit.kind, realtime_now_ns()); };
        taken = shm::meters::see_quota(word, client::quota_of(limit), 1, &period, clock).used;
    }
    near.used = std::min(1.0, static_cast<double>(taken) / static_cast<double>(limit.allowance));
    if (near.used <= kNearShare) {
        return std::nullopt;
    }
    near.state = rate ? client::state_of_rate(limit, taken, 1, false)
                      : client::state_of_quota(limit, taken, 1, now_ns, false);
    return near;
}

/// The limits of plans, copied once a walk.
class PlanLimits {
  public:
    explicit PlanLimits(const shm::TableView& table) : table_(table), plans_(table.plan_count) {}
    const std::vector<shm::Limit>& of(uint32_t plan) {
        static const std::vector<shm::Limit> none;
        if (plan == 0 || plan >= plans_.size()) {
            return none;
        }
        std::optional<std::vector<shm::Limit>>& known = plans_[plan];
        if (!known) {
            known.emplace();
            // Lists of a plan that only another generation can say are not found: kPlanElsewhere.
            const shm::ListReader<shm::Limit> list(table_, shm::plan_body(table_, plan));
            for (uint32_t i = 0; i < list.count() && i < shm::kMeterWordsMax; ++i) {
                known->push_back(list.get(i));
            }
        }
        return *known;
    }

  private:
    const shm::TableView& table_;
    std::vector<std::optional<std::vector<shm::Limit>>> plans_;
};

using NearFirst = First<Near, bool (*)(const Near&, const Near&)>;

/// One walk over the meters of a generation.
class LimitWalk {
  public:
    LimitWalk(const shm::GenerationMapping& generation, uint64_t now_ns, size_t count)
        : table_(generation.table),
          cells_(generation.cells),
          now_ns_(now_ns),
          plans_(table_),
          nearest_(count, [](const Near& a, const Near& b) { return a.used > b.used; }) {}

    void keys() {
        for (uint64_t index = 0; index < cells_.cell_count && cells_.meter_words != 0; ++index) {
            if (is_used(index)) {
                key(index);
            }
        }
    }
    void owners() {
        const uint64_t count = std::min(table_.owner_count, cells_.owner_count);
        for (uint64_t owner = 1; owner < count; ++owner) {
            for (const shm::Limit& limit : plans_.of(shm::owner_plan(table_, static_cast<uint32_t>(owner)))) {
                if (limit.word < shm::kMeterWordsMax) {
                    note(owner, true, load(cells_.owners[owner].words[limit.word]), limit);
                }
            }
        }
    }
    std::vector<Near> nearest() { return nearest_.take(); }
    uint64_t found() const { return found_; }

  private:
    /// Relaxed: a word is looked at by itself, and what is shown is of some moment.
    static uint64_t load(const shm::Word& word) { return word.load(std::memory_order_relaxed); }

    /// A word of 0 has taken nothing: most keys are passed by with a look at their cell alone.
    bool is_used(uint64_t index) const {
        uint64_t any = 0;
        for (uint32_t word = 0; word < cells_.meter_words; ++word) {
            any |= load(cells_.meter(index, word));
        }
        return any != 0;
    }
    void key(uint64_t index) {
        // SYNC slot-published: acquire; the policy that it names is complete.
        const uint64_t meta = table_.slots[index].meta.load(std::memory_order_acquire);
        const shm::SlotState state = shm::Meta::state(meta);
        if (state == shm::SlotState::kEmpty || state == shm::SlotState::kDead) {
            return;
        }
        shm::Policy policy;
        shm::read_policy(table_, meta, &policy);
        for (const shm::Limit& of_plan : plans_.of(policy.plan)) {
            shm::Limit limit = of_plan;
            if (policy.overrides != 0) {
                client::override_figures(table_, policy, &limit);
            }
            if (limit.word < cells_.meter_words) {
                note(index, false, load(cells_.meter(index, limit.word)), limit);
            }
        }
    }
    void note(uint64_t index, bool of_owner, uint64_t word, const shm::Limit& limit) {
        if (std::optional<Near> near = look_at(word, limit, now_ns_)) {
            near->index = index;
            near->of_owner = of_owner;
            ++found_;
            nearest_.add(*near);
        }
    }

    const shm::TableView& table_;
    const shm::CellsView& cells_;
    uint64_t now_ns_;
    PlanLimits plans_;
    NearFirst nearest_;
    uint64_t found_ = 0;
};

LimitUse tell(const shm::TableView& table, const Near& near) {
    LimitUse use;
    if (near.of_owner) {
        use.owner = name_at(table, shm::read_value(table.owners[near.index].name));
    } else {
        KeyRate key;
        name_key(table, near.index, &key);
        use.id = std::move(key.id);
        use.owner = std::move(key.owner);
    }
    use.limit = near.state.name;
    use.rate = near.rate;
    use.shadow = near.shadow;
    use.used = near.used;
    use.allowance = near.state.allowance;
    use.remaining = near.state.remaining;
    use.reset_ms = near.state.reset_ms;
    return use;
}

}  // namespace

CellBaseline::CellBaseline(uint64_t cells)
    : sums_(static_cast<shm::CellSums*>(calloc(cells, sizeof(shm::CellSums)))) {
    if (sums_ == nullptr) {
        throw std::bad_alloc();
    }
}

void walk_counts(const shm::GenerationMapping& generation, CellBaseline* baseline, Sort sort, size_t count,
                 Activity* activity) {
    struct Grown {
        uint64_t index;
        KeyRate rate;
    };
    const auto busier = [sort](const Grown& a, const Grown& b) {
        return sort_value(a.rate, sort) > sort_value(b.rate, sort);
    };
    First<Grown, decltype(busier)> busiest(count, busier);
    const double seconds = activity->seconds;
    baseline->advance(generation.cells, [&](uint64_t index, const shm::CellSums& grown) {
        if (seconds > 0) {
            KeyRate rate;
            rate.allowed = plausible_rate(grown.allowed, seconds);
            rate.denied = plausible_rate(grown.denied, seconds);
            if (rate.allowed + rate.denied > 0) {
                ++activity->active;
                busiest.add({index, std::move(rate)});
            }
        }
    });
    for (Grown& one : busiest.take()) {
        if (name_key(generation.table, one.index, &one.rate)) {
            activity->keys.push_back(std::move(one.rate));
        }
    }
}

void walk_limits(const shm::GenerationMapping& generation, uint64_t now_ns, size_t count,
                 Activity* activity) {
    LimitWalk walk(generation, now_ns, count);
    walk.keys();
    walk.owners();
    activity->near += walk.found();
    for (const Near& near : walk.nearest()) {
        activity->limits.push_back(tell(generation.table, near));
    }
    std::stable_sort(activity->limits.begin(), activity->limits.end(),
                     [](const LimitUse& a, const LimitUse& b) { return a.used > b.used; });
    activity->limits.resize(std::min(activity->limits.size(), count));
}

uint64_t unflushed_max(const shm::CellsView& cells) {
    uint64_t marks = 0;
    for (uint64_t byte = 0; byte < cells.dirty_bytes; ++byte) {
        // Relaxed: a number for people.
        marks += cells.dirty[byte].load(std::memory_order_relaxed) != 0 ? 1 : 0;
    }
    return std::min(marks << cells.dirty_shift, cells.cell_count);
}

}  // namespace apikeyd::top
