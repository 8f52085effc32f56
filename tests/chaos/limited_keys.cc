#include "limited_keys.h"

#include <unistd.h>

#include <cstring>
#include <stdexcept>

#include "shm/attach.h"

namespace apikeyd::test {
namespace {

constexpr uint64_t kHour_s = 3600;
constexpr uint64_t kDay_s = 86400;

/// As a plan says it.
std::string text_of(const AccountLimit& limit) {
    const std::string requests = std::to_string(limit.requests);
    const std::string figures = limit.period_s == 0
                                    ? "rate: " + requests + "/s, burst: " + std::to_string(limit.burst)
                                    : "quota: " + requests + (limit.period_s == kHour_s ? "/hour" : "/day");
    return "{name: " + limit.name + ", " + figures + "}";
}

std::string text_of(const std::vector<AccountLimit>& limits) {
    std::string text;
    for (const AccountLimit& limit : limits) {
        text += (text.empty() ? "" : ", ") + text_of(limit);
    }
    return "limits: [" + text + "]";
}

AccountLimit rate(const char* name, uint64_t requests, uint64_t burst) {
    return {name, 0, requests, burst};
}

AccountLimit quota(const char* name, uint64_t requests, uint64_t period_s = kHour_s) {
    return {name, period_s, requests, 0};
}

/// Of the operator's plans, and of the owner's.
const std::vector<AccountLimit> kRate = {rate("slow", 20, 30)};
const std::vector<AccountLimit> kFine = {rate("fine", 100, 5)};  // its window is shorter than 100 ms
const std::vector<AccountLimit> kQuota = {quota("hourly", 2000)};
const std::vector<AccountLimit> kBoth = {quota("hourly", 20000), rate("fast", 50, 40),
                                         quota("daily", 40000, kDay_s)};
const std::vector<AccountLimit> kTeam = {rate("team", 60, 20), quota("together", 10000)};
const std::vector<AccountLimit> kCrew = {quota("together", 3000)};

}  // namespace

std::vector<AccountLimit> LimitedKeys::changing_limits() const {
    const std::string name = std::to_string(version_ / 3);
    return {rate(("r" + name).c_str(), 10 + version_ % 4 * 15, 10 + version_ % 3 * 20),
            quota(("q" + name).c_str(), 2000 + version_ % 5 * 1000)};
}

std::string LimitedKeys::head() const {
    std::string plans;
    const auto plan = [&](const char* name, const std::vector<AccountLimit>& limits) {
        plans += std::string(plans.empty() ? "" : ", ") + "{name: " + name + ", " + text_of(limits) + "}";
    };
    plan("rate", kRate);
    plan("fine", kFine);
    plan("quota", kQuota);
    plan("both", kBoth);
    plan("team", kTeam);
    plan("crew", kCrew);
    plan("changing", changing_limits());
    return "plans: [" + plans + "]\nowners: [{name: team, plan: team}, {name: crew, plan: crew}]\n";
}

void LimitedKeys::draw(KeyBook& book) {
    for (size_t i = 0; i < kKeys; ++i) {
        const size_t key = book.draw();
        if (key != first_ + i) {
            throw std::logic_error("limited keys are drawn when it is their turn");
        }
        BookedKey& booked = book.loosen(key);
        booked.in_set = booked.limited = true;
    }
    size_t next = 0;
    // The next few keys, of that plan.
    const auto some = [&](size_t count, const std::string& terms, const std::string& owner) {
        std::vector<size_t> taken;
        for (; count != 0; --count) {
            BookedKey& booked = book.loosen(first_ + next);
            booked.terms = terms;
            booked.owner = owner;
            taken.push_back(next++);
        }
        return taken;
    };
    const auto each = [&](std::vector<Holder>& holders, const std::vector<size_t>& of,
                          const std::vector<AccountLimit>& limits) {
        for (const size_t key : of) {
            holders.push_back({"key " + book[first_ + key].plain.id, {key}, limits});
        }
    };
    each(steady_, some(4, ", plan: rate", "test"), kRate);
    each(steady_, some(4, ", plan: fine", "test"), kFine);
    each(steady_, some(4, ", plan: both", "test"), kBoth);
    for (uint64_t requests = 500; requests <= 2000; requests += 500) {  // in place of the plan's
        const std::vector<AccountLimit> own = {quota("hourly", requests)};
        each(steady_, some(1, ", plan: quota, " + text_of(own), "test"), own);
    }
    std::vector<size_t> team = some(2, ", plan: quota", "team");
    each(steady_, team, kQuota);
    for (const size_t key : some(2, "", "team")) {
        team.push_back(key);
    }
    steady_.push_back({"owner team", team, kTeam});
    steady_.push_back({"owner crew", some(4, "", "crew"), kCrew});
    each(changing_, some(4, ", plan: changing", "test"), changing_limits());
    if (next != kKeys) {
        throw std::logic_error("each limited key has its plan");
    }
    book.set_head(head());
}

void LimitedKeys::add(const Holder& holder, std::vector<Account>* accounts) {
    for (const AccountLimit& limit : holder.limits) {
        accounts->push_back(
            {ledger_.add(holder.whose, limit, holder.keys), holder.keys, limit.period_s != 0});
    }
}

void LimitedKeys::begin() {
    for (const Holder& holder : steady_) {
        add(holder, &steady_accounts_);
    }
    for (const Holder& holder : changing_) {
        add(holder, &changing_accounts_);
    }
}

void LimitedKeys::begin_change(KeyBook& book) {
    ++version_;
    book.set_head(head());
    for (const Account& account : changing_accounts_) {
        ledger_.begin_change(account.number);
    }
}

void LimitedKeys::end_change() {
    const std::vector<AccountLimit> limits = changing_limits();
    for (size_t i = 0; i < changing_accounts_.size(); ++i) {
        ledger_.end_change(changing_accounts_[i].number, limits[i % limits.size()]);
    }
}

void LimitedKeys::compare(KeyBoard& board, apikey_client* client) {
    for (const Account& account : steady_accounts_) {
        apikey_limits limits{};
        limits.size = sizeof limits;
        apikey_request request = APIKEY_REQUEST_INIT;
        request.limits = &limits;
        const auto ask = [&] {
            return board.call_one(lanes_, client, first_ + account.keys.front(), request);
        };
        // A rate that refuses says nothing of quotas, and does not for long.
        if (account.is_quota && await([&] { return ask() != APIKEY_RATE_LIMITED; }) &&
            limits.quota.name == ledger_.name(account.number)) {
            collect(true);
            uint64_t lost = 0;
            for (const size_t key : account.keys) {
                lost += tally_.lost(key);
            }
            ledger_.compare(account.number, limits.quota.remaining, lost);
        }
    }
}

void LimitedKeys::begin_anew(const Site& site) {
    namespace shm = apikey::shm;
    const std::string directory = site.run() + "/default";
    const shm::AttachOptions options{directory.c_str(), shm::kAnyOwner};
    shm::ControlMapping control;
    shm::GenerationMapping mapping;
    if (shm::attach_control(options, &control) != shm::AttachResult::kOk ||
        shm::attach_generation(options, control, shm::current_of(control.control->current_next.load()),
                               &mapping) != shm::AttachResult::kOk) {
        throw std::runtime_error("cannot attach to what is in force");
    }
    // No limit's tag is 0, so that this is fresh; 0 itself would be looked for in the generation before.
    constexpr uint64_t kFresh = 1;
    const shm::CellsView& cells = mapping.cells;
    for (uint64_t index = 0; index < cells.cell_count; ++index) {
        for (uint32_t word = 0; word < cells.meter_words; ++word) {
            cells.meter(index, word).store(kFresh);
        }
    }
    for (uint64_t owner = 0; owner < cells.owner_count; ++owner) {
        for (shm::Word& word : cells.owners[owner].words) {
            word.store(kFresh);
        }
    }
    shm::detach_generation(&mapping);
    shm::detach_control(&control);
    ledger_.forget(tally_);
}

}  // namespace apikeyd::test
