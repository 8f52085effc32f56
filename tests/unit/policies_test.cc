// What keys may do, from the source's rows to the client's answers: scopes, addresses, environments, limits,
// across generations.

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <random>

#include "apikey/apikey.h"
#include "client/explain.h"
#include "client/single_rate.h"
#include "client/validate.h"
#include "core/builder.h"
#include "core/table_policies.h"
#include "plain_row.h"
#include "publisher_fixture.h"

namespace {

/// What this program's clients take for the time; 0: the kernel's.
uint64_t simulated_ns = 0;

}  // namespace

/// In place of libc's.
extern "C" int clock_gettime(clockid_t clock, timespec* out) noexcept {
    if (simulated_ns == 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) {
        return static_cast<int>(syscall(SYS_clock_gettime, clock, out));
    }
    *out = {static_cast<time_t>(simulated_ns / 1'000'000'000),
            static_cast<long>(simulated_ns % 1'000'000'000)};
    return 0;
}

namespace apikeyd {
namespace {

namespace client = apikey::client;
namespace shm = apikey::shm;

class PoliciesTest : public PublisherFixture {
  protected:
    void TearDown() override {
        apikey_close(client_);
        PublisherFixture::TearDown();
    }

    PlainRow key(unsigned number, KeyTerms terms = {}, const std::string& owner = "") {
        PlainRow made = make_row(number);
        made.row.owner = owner;
        if (!terms.empty()) {
            made.row.terms = std::make_shared<const KeyTerms>(std::move(terms));
        }
        return made;
    }
    void set(const PolicySet& policies) {
        publisher_->set_policies(std::make_shared<const PolicySet>(policies));
    }
    void apply(const std::vector<PlainRow>& keys) {
        std::vector<Change> changes;
        for (const PlainRow& one : keys) {
            changes.push_back({Change::Kind::kUpsert, one.row});
        }
        const int before = told_;
        publisher_->apply(changes, told());
        run_until([&] { return told_ == before + 1; });
    }
    /// Has a generation built for keys that the live one has no room for.
    void grow(unsigned from) {
        const uint32_t before = publisher_->current()->number();
        std::vector<PlainRow> many;
        for (unsigned i = 0; i < 900; ++i) {
            many.push_back(key(from + i));
        }
        apply(many);
        ASSERT_NE(publisher_->current()->number(), before);
    }
    apikey_client* open(const apikey_options& asked = {}) {
        apikey_options options = asked;
        options.size = sizeof options;
        options.directory = directory_.path().c_str();
        apikey_client* made = nullptr;
        EXPECT_EQ(apikey_open(&options, &made), APIKEY_OK);
        return made;
    }
    apikey_client* the_client() {
        client_ = client_ != nullptr ? client_ : open();
        return client_;
    }
    apikey_code ask(const PlainRow& presented, const apikey_request& request = APIKEY_REQUEST_INIT) {
        apikey_verdict verdict;
        EXPECT_EQ(apikey_validate_request(the_client(), presented.text.data(), presented.text.size(),
                                          &request, &verdict),
                  APIKEY_OK);
        flags_ = verdict.flags & ~APIKEY_FLAG_STALE;  // nobody beats here
        return verdict.code;
    }
    apikey_code ask_scopes(const PlainRow& presented, const std::string& expression) {
        apikey_scopes* scopes = nullptr;
        size_t offset = 0;
        EXPECT_EQ(apikey_scopes_compile(the_client(), expression.c_str(), &scopes, &offset), APIKEY_OK)
            << expression << " at " << offset;
        apikey_request request = APIKEY_REQUEST_INIT;
        request.scopes = scopes;
        const apikey_code code = ask(presented, request);
        EXPECT_EQ(ask(presented, request), code) << "as it was, by the masks that were kept";
        apikey_scopes_free(scopes);
        return code;
    }
    unsigned passes(const PlainRow& presented, unsigned times) {
        unsigned passed = 0;
        for (unsigned i = 0; i < times; ++i) {
            passed += ask(presented) == APIKEY_VALID ? 1 : 0;
        }
        return passed;
    }

    /// The words of a key and of an owner.
    std::vector<uint64_t> meters_of(const PlainRow& row, const std::string& owner) {
        const shm::CellsView& cells = publisher_->current()->cells();
        std::vector<uint64_t> words;
        for (uint32_t word = 0; word < cells.meter_words; ++word) {
            words.push_back(cells.meter(found(row.row).index, word).load());
        }
        for (const shm::Word& word :
             cells.owners[publisher_->current()->table().policies().owner(owner)].words) {
            words.push_back(word.load());
        }
        return words;
    }

    apikey_client* client_ = nullptr;
    uint32_t flags_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Loop, PoliciesTest, testing::Values(LoopKind::epoll), loop_param_name);

TEST_P(PoliciesTest, ScopesAreGrantedByNameAndByBranch) {
    set({.scopes = {"reports.read", "reports.write", "billing.read"}, .plans = {}, .owners = {}});
    const PlainRow one = key(1, {.scopes = {"reports.read"}});
    const PlainRow branch = key(2, {.scopes = {"reports.*"}});
    const PlainRow all = key(3, {.scopes = {"*"}});
    const PlainRow none = key(4);
    apply({one, branch, all, none});
    for (const auto& [expression, expected] : std::vector<std::pair<std::string, std::string>>{
             {"reports.read", "1110"},
             {"reports.write", "0110"},
             {"reports.*", "0110"},
             {"billing.read", "0010"},
             {"reports.read AND billing.read", "0010"},
             {"reports.write OR billing.read", "0110"},
             {"reports.read AND reports.write OR billing.read", "0110"},
             {"reports.read AND (reports.write OR billing.read)", "0110"},
             {"((reports.read))", "1110"},
         }) {
        std::string granted;
        for (const PlainRow* presented : {&one, &branch, &all, &none}) {
            const apikey_code code = ask_scopes(*presented, expression);
            EXPECT_TRUE(code == APIKEY_VALID || code == APIKEY_INSUFFICIENT_PERMISSIONS);
            granted += code == APIKEY_VALID ? '1' : '0';
        }
        EXPECT_EQ(granted, expected) << expression;
    }
    EXPECT_EQ(ask(none), APIKEY_VALID) << "who asks for nothing";
}

TEST_P(PoliciesTest, ManyScopesAgreeWithASlowLook) {
    constexpr unsigned kNames = 300;  // and 10 branches
    std::mt19937_64 random(3);
    std::vector<std::string> names;
    for (unsigned i = 0; i < kNames; ++i) {
        names.push_back("area" + std::to_string(i % 10) + ".n" + std::to_string(i));
    }
    set({.scopes = names});
    std::vector<PlainRow> keys;
    for (unsigned number = 0; number < 20; ++number) {
        std::vector<std::string> scopes;
        for (const std::string& name : names) {
            if (random() % 4 == 0) {
                scopes.push_back(name);
            }
        }
        scopes.push_back("area" + std::to_string(number % 10) + ".*");
        keys.push_back(key(number, {.scopes = scopes}));
    }
    apply(keys);
    const auto granted = [](const PlainRow& presented, const std::string& name) {
        const std::vector<std::string>& scopes = terms_of(presented.row).scopes;
        const std::string branch = name.substr(0, name.find('.')) + ".*";
        return std::any_of(scopes.begin(), scopes.end(),
                           [&](const std::string& scope) { return scope == name || scope == branch; });
    };
    for (unsigned round = 0; round < 300; ++round) {
        const std::string& a = names[round];
        const std::string& b = names[random() % kNames];
        const std::string& c = names[random() % kNames];
        const PlainRow& presented = keys[random() % keys.size()];
        const bool all = granted(presented, a) && (granted(presented, b) || granted(presented, c));
        EXPECT_EQ(ask_scopes(presented, a + " AND (" + b + " OR " + c + ")"),
                  all ? APIKEY_VALID : APIKEY_INSUFFICIENT_PERMISSIONS)
            << presented.row.id << ": " << a << ", " << b << ", " << c;
    }
}

TEST_P(PoliciesTest, AnExpressionHoldsAcrossGenerationsAndScopesThatComeLater) {
    set({.scopes = {"a.x", "b.x"}, .plans = {}, .owners = {}});
    PlainRow granted = key(1, {.scopes = {"b.x"}});
    apply({granted});
    apikey_scopes* scopes = nullptr;
    ASSERT_EQ(apikey_scopes_compile(the_client(), "b.x", &scopes, nullptr), APIKEY_OK);
    apikey_request request = APIKEY_REQUEST_INIT;
    request.scopes = scopes;
    EXPECT_EQ(ask(granted, request), APIKEY_VALID);
    grow(100);
    EXPECT_EQ(ask(granted, request), APIKEY_VALID);
    PlainRow other = key(1, {.scopes = {"b.*"}});
    apply({other});
    EXPECT_EQ(ask(granted, request), APIKEY_VALID) << "by a branch that was granted later";
    apply({key(1, {.scopes = {"a.x"}})});
    EXPECT_EQ(ask(granted, request), APIKEY_INSUFFICIENT_PERMISSIONS);
    apikey_scopes_free(scopes);
}

TEST_P(PoliciesTest, BadExpressionsSayWhere) {
    set({.scopes = {"a", "b"}, .plans = {}, .owners = {}});
    apply({key(1)});
    const auto fault = [&](const char* expression) {
        apikey_scopes* scopes = nullptr;
        size_t offset = 999;
        const apikey_result result = apikey_scopes_compile(the_client(), expression, &scopes, &offset);
        EXPECT_EQ(scopes, nullptr);
        return std::pair(result, offset);
    };
    const auto bad = [](size_t offset) { return std::pair(APIKEY_BAD_EXPRESSION, offset); };
    EXPECT_EQ(fault(""), bad(0));
    EXPECT_EQ(fault("a AND"), bad(5));
    EXPECT_EQ(fault("(a OR b"), bad(7));
    EXPECT_EQ(fault("a)"), bad(1));
    EXPECT_EQ(fault("a b"), bad(2));
    EXPECT_EQ(fault("a AND OR b"), bad(6));
    EXPECT_EQ(fault("()"), bad(1));
    EXPECT_EQ(fault("a..b"), bad(0));
    EXPECT_EQ(fault("a AND c"), std::pair(APIKEY_UNKNOWN_SCOPE, size_t{6}));
    std::string many = "a";
    for (int i = 0; i < 32; ++i) {
        many += " OR a";
    }
    EXPECT_EQ(fault(many.c_str()).first, APIKEY_BAD_EXPRESSION) << "more than 32 names";
    const std::string deep = std::string(100, '(') + "a" + std::string(100, ')');
    EXPECT_EQ(fault(deep.c_str()).first, APIKEY_BAD_EXPRESSION);
}

TEST_P(PoliciesTest, AddressesBindAKey) {
    set({});
    PlainRow bound = key(
        1, {.addresses = {*parse_address_range("192.0.2.0/24"), *parse_address_range("2001:db8:8000::/33")}});
    const PlainRow free = key(2);
    apply({bound, free});
    const auto from = [&](const PlainRow& presented, const std::string& text) {
        apikey_address address;
        EXPECT_EQ(apikey_address_parse(text.data(), text.size(), &address), APIKEY_OK) << text;
        apikey_request request = APIKEY_REQUEST_INIT;
        request.address = &address;
        return ask(presented, request);
    };
    EXPECT_EQ(from(bound, "192.0.2.255"), APIKEY_VALID);
    EXPECT_EQ(from(bound, "::ffff:192.0.2.1"), APIKEY_VALID);
    EXPECT_EQ(from(bound, "192.0.3.1"), APIKEY_IP_NOT_ALLOWED);
    EXPECT_EQ(from(bound, "2001:db8:ffff::1"), APIKEY_VALID);
    EXPECT_EQ(from(bound, "2001:db8:7fff::1"), APIKEY_IP_NOT_ALLOWED);
    EXPECT_EQ(ask(bound), APIKEY_IP_NOT_ALLOWED) << "an address that nobody gave is none of them";
    EXPECT_EQ(from(free, "192.0.3.1"), APIKEY_VALID);
    apikey_address address;
    for (const std::string text : {"", "192.0.2", "192.0.2.1.1", "1:2", "::g", "192.0.2.1 "}) {
        EXPECT_EQ(apikey_address_parse(text.data(), text.size(), &address), APIKEY_BAD_ARGUMENT) << text;
    }
}

TEST_P(PoliciesTest, AClientMayRequireAnEnvironment) {
    set({});
    PlainRow live = key(1);
    PlainRow test = key(2);
    test.row.environment = "test";
    apply({live, test});
    apikey_options options{};
    options.required_environment = "test";
    client_ = open(options);
    EXPECT_EQ(ask(test), APIKEY_VALID);
    EXPECT_EQ(ask(live), APIKEY_INSUFFICIENT_PERMISSIONS);
    const apikey_key keys[] = {{live.text.data(), live.text.size()}, {test.text.data(), test.text.size()}};
    apikey_verdict verdicts[2];
    EXPECT_EQ(apikey_validate_many(client_, keys, 2, verdicts), 1u);
    EXPECT_EQ(verdicts[0].code, APIKEY_INSUFFICIENT_PERMISSIONS);
}

TEST_P(PoliciesTest, AllOfARequestsLimitsOrNone) {
    set({.scopes = {},
         .plans = {{"free",
                    {limit("hourly", "5/h"), limit("daily", "3/day"), limit("monthly", "100/month")}}},
         .owners = {}});
    const PlainRow limited = key(1, {.plan = "free"});
    apply({limited});
    EXPECT_EQ(passes(limited, 2), 2u);
    apikey_limits limits{};
    limits.size = sizeof limits;
    apikey_request request = APIKEY_REQUEST_INIT;
    request.limits = &limits;
    EXPECT_EQ(ask(limited, request), APIKEY_VALID);
    EXPECT_STREQ(limits.quota.name, "daily");
    EXPECT_EQ(limits.quota.allowance, 3u);
    EXPECT_EQ(limits.quota.remaining, 0u);
    EXPECT_LE(limits.quota.reset_ms, 86'400'000u);
    EXPECT_STREQ(limits.rate.name, "hourly");
    EXPECT_EQ(limits.rate.remaining, 2u);
    EXPECT_EQ(ask(limited, request), APIKEY_USAGE_EXCEEDED);
    EXPECT_STREQ(limits.quota.name, "daily");
    EXPECT_EQ(limits.quota.retry_after_ms, limits.quota.reset_ms);
    EXPECT_STREQ(limits.rate.name, "") << "nothing was asked of it";
    // A plan that changes holds at once, and nothing was spent by what was refused.
    set({.scopes = {},
         .plans = {{"free",
                    {limit("hourly", "5/h"), limit("daily", "30/day"), limit("monthly", "100/month")}}},
         .owners = {}});
    EXPECT_EQ(passes(limited, 5), 2u);
    EXPECT_EQ(ask(limited, request), APIKEY_RATE_LIMITED);
    EXPECT_STREQ(limits.rate.name, "hourly");
    EXPECT_GT(limits.rate.retry_after_ms, 0u);
    EXPECT_LE(limits.rate.retry_after_ms, 3'600'000u / 5);
}

TEST_P(PoliciesTest, ACostIsSpentWholeOrNotAtAll) {
    set({.scopes = {}, .plans = {{"free", {limit("daily", "10/day")}}}, .owners = {}});
    const PlainRow limited = key(1, {.plan = "free"});
    apply({limited});
    apikey_request request = APIKEY_REQUEST_INIT;
    apikey_limits limits{};
    limits.size = sizeof limits;
    request.limits = &limits;
    request.cost = 7;
    EXPECT_EQ(ask(limited, request), APIKEY_VALID);
    EXPECT_EQ(ask(limited, request), APIKEY_USAGE_EXCEEDED);
    EXPECT_EQ(limits.quota.remaining, 3u);
    request.cost = UINT32_MAX;
    EXPECT_EQ(ask(limited, request), APIKEY_USAGE_EXCEEDED);
    EXPECT_EQ(limits.quota.retry_after_ms, UINT64_MAX);
    request.cost = 3;
    EXPECT_EQ(ask(limited, request), APIKEY_VALID);
    request.cost = 0;
    apikey_verdict verdict;
    EXPECT_EQ(apikey_validate_request(client_, limited.text.data(), limited.text.size(), &request, &verdict),
              APIKEY_BAD_ARGUMENT);
    EXPECT_EQ(verdict.code, APIKEY_UNAVAILABLE);
}

TEST_P(PoliciesTest, WhatIsNoRequestSpendsAndCountsNothing) {
    set({.scopes = {"a.read"},
         .plans = {{"free", {limit("daily", "10/day"), limit("slow", "1/d", 5)}},
                   {"team", {limit("together", "7/h")}}},
         .owners = {{"acme", "team"}}});
    const PlainRow limited = key(1, {.scopes = {"a.read"}, .plan = "free"}, "acme");
    apply({limited});
    EXPECT_EQ(ask(limited), APIKEY_VALID);  // so that each meter has been used
    const std::vector<uint64_t> used = meters_of(limited, "acme");
    const shm::CellsView& cells = publisher_->current()->cells();
    const auto counts = [&] {
        std::vector<uint64_t> all;
        for (uint32_t code = 0; code < shm::kCodesMax; ++code) {
            all.push_back(sum_code(cells, code));
        }
        const shm::CellSums sums = sum_cell(cells, found(limited.row).index);
        all.insert(all.end(), {sums.allowed, sums.denied});
        return all;
    };
    const std::vector<uint64_t> counted = counts();
    const auto refused = [&](const apikey_request* request) {
        apikey_verdict verdict;
        std::memset(&verdict, 0xa5, sizeof verdict);
        EXPECT_EQ(apikey_validate_request(the_client(), limited.text.data(), limited.text.size(), request,
                                          &verdict),
                  APIKEY_BAD_ARGUMENT);
        EXPECT_EQ(verdict.code, APIKEY_UNAVAILABLE);
        EXPECT_STREQ(verdict.key_id, "");
        EXPECT_EQ(meters_of(limited, "acme"), used);
        EXPECT_EQ(counts(), counted);
    };
    apikey_request request = APIKEY_REQUEST_INIT;
    request.cost = 0;
    refused(&request);
    refused(nullptr);
    request = APIKEY_REQUEST_INIT;
    for (const size_t size : {size_t{0}, size_t{1}, offsetof(apikey_request, cost)}) {
        request.size = size;
        refused(&request);
    }
    request = APIKEY_REQUEST_INIT;
    apikey_limits limits{};
    request.limits = &limits;
    for (const size_t size : {size_t{0}, sizeof(size_t), sizeof limits - 1}) {
        limits.size = size;
        refused(&request);
    }
    // What does not compile is no expression, and what does not parse no address, that a request could have.
    const auto no_scopes = [&](const char* expression, apikey_result result) {
        apikey_scopes* scopes = nullptr;
        EXPECT_EQ(apikey_scopes_compile(the_client(), expression, &scopes, nullptr), result);
        EXPECT_EQ(scopes, nullptr);
    };
    no_scopes("a.write", APIKEY_UNKNOWN_SCOPE);
    no_scopes("(a.read", APIKEY_BAD_EXPRESSION);
    no_scopes("a.read)", APIKEY_BAD_EXPRESSION);
    no_scopes("", APIKEY_BAD_EXPRESSION);
    no_scopes(nullptr, APIKEY_BAD_ARGUMENT);
    EXPECT_EQ(apikey_scopes_compile(the_client(), "a.read", nullptr, nullptr), APIKEY_BAD_ARGUMENT);
    apikey_address address;
    std::memset(&address, 0xa5, sizeof address);
    EXPECT_EQ(apikey_address_parse(nullptr, 0, &address), APIKEY_BAD_ARGUMENT);
    EXPECT_EQ(std::count(std::begin(address.bytes), std::end(address.bytes), 0), 16);
    EXPECT_EQ(apikey_address_parse("192.0.2.1", 9, nullptr), APIKEY_BAD_ARGUMENT);
    EXPECT_EQ(meters_of(limited, "acme"), used);
    EXPECT_EQ(counts(), counted);
    for (const apikey_result result : {APIKEY_BAD_ARGUMENT, APIKEY_BAD_EXPRESSION, APIKEY_UNKNOWN_SCOPE}) {
        EXPECT_GT(std::strlen(apikey_result_text(result)), 20u) << result;
    }
}

TEST_P(PoliciesTest, ACostThatNoMeterCouldHoldIsRefusedForEver) {
    set({.scopes = {},
         .plans = {{"slow", {limit("slow", "1/d", 5)}},  // of so many requests the time would not fit 64 bits
                   {"both", {limit("monthly", "10000000000/month"), limit("slow", "1/d", 5)}}},
         .owners = {{"acme", "slow"}}});
    const PlainRow alone = key(1, {.plan = "slow"});
    const PlainRow both = key(2, {.plan = "both"}, "acme");
    apply({alone, both});
    for (const PlainRow* asked : {&alone, &both}) {
        EXPECT_EQ(ask(*asked), APIKEY_VALID);
        const std::vector<uint64_t> used = meters_of(*asked, "acme");
        for (const uint32_t cost : {6u, 2'000'000u, UINT32_MAX}) {
            apikey_limits limits{};
            limits.size = sizeof limits;
            apikey_request request = APIKEY_REQUEST_INIT;
            request.cost = cost;
            request.limits = &limits;
            EXPECT_EQ(ask(*asked, request), APIKEY_RATE_LIMITED) << cost;
            EXPECT_STREQ(limits.rate.name, "slow");
            EXPECT_EQ(limits.rate.retry_after_ms, UINT64_MAX);
            EXPECT_EQ(meters_of(*asked, "acme"), used) << cost;
        }
    }
}

TEST_P(PoliciesTest, OwnersShareAndKeysOverride) {
    set({.scopes = {},
         .plans = {{"free", {limit("daily", "3/day")}}, {"team", {limit("together", "5/day")}}},
         .owners = {{"acme", "team"}}});
    const PlainRow first = key(1, {.plan = "free"}, "acme");
    const PlainRow second = key(2, {.plan = "free", .overrides = {limit("daily", "100/day")}}, "acme");
    const PlainRow without = key(3, {}, "acme");
    const PlainRow stranger = key(4, {.plan = "free"}, "other");
    apply({first, second, without, stranger});
    EXPECT_EQ(passes(first, 5), 3u);
    EXPECT_EQ(passes(without, 1), 1u);
    EXPECT_EQ(passes(second, 5), 1u) << "five together";
    EXPECT_EQ(passes(stranger, 5), 3u);
    set({.scopes = {},
         .plans = {{"free", {limit("daily", "3/day")}}, {"team", {limit("together", "50/day")}}},
         .owners = {}});
    EXPECT_EQ(passes(second, 20), 20u) << "an owner whose plan is gone";
    EXPECT_EQ(passes(without, 20), 20u);
    EXPECT_EQ(passes(first, 1), 0u);
}

TEST_P(PoliciesTest, AShadowRefusesNothingAndCounts) {
    set({.scopes = {}, .plans = {{"free", {limit("daily", "2/day", 0, true)}}}, .owners = {}});
    const PlainRow limited = key(1, {.plan = "free"});
    apply({limited});
    EXPECT_EQ(passes(limited, 2), 2u);
    EXPECT_EQ(flags_, 0u);
    EXPECT_EQ(passes(limited, 3), 3u);
    EXPECT_EQ(flags_, APIKEY_FLAG_SHADOW);
    const shm::CellsView& cells = publisher_->current()->cells();
    EXPECT_EQ(sum_code(cells, APIKEY_SHADOW_USAGE_EXCEEDED), 3u);
    EXPECT_EQ(sum_code(cells, APIKEY_VALID), 5u);
}

TEST_P(PoliciesTest, AShadowIsToldOnlyWhereNothingIsEnforced) {
    set({.plans = {{"free",
                    {limit("trial", "2/day", 0, true), limit("daily", "100/day"),
                     limit("fast", "1/h", 1, true)}}}});
    const PlainRow limited = key(1, {.plan = "free"});
    apply({limited});
    apikey_limits limits{};
    for (uint64_t asked = 1; asked <= 5; ++asked) {
        limits = {};
        limits.size = sizeof limits;
        apikey_request request = APIKEY_REQUEST_INIT;
        request.limits = &limits;
        EXPECT_EQ(ask(limited, request), APIKEY_VALID);
        EXPECT_STREQ(limits.quota.name, "daily");
        EXPECT_EQ(limits.quota.remaining, 100 - asked);
        EXPECT_EQ(limits.quota.retry_after_ms, 0u);
    }
    EXPECT_STREQ(limits.rate.name, "fast");
    EXPECT_GT(limits.rate.retry_after_ms, 0u) << "but for shadow mode";
    EXPECT_EQ(flags_, APIKEY_FLAG_SHADOW);
}

TEST_P(PoliciesTest, MetersGoOnInTheNextGeneration) {
    set({.scopes = {},
         .plans = {{"free", {limit("daily", "10/day"), limit("hourly", "10/h")}},
                   {"team", {limit("t", "25/day")}}},
         .owners = {{"acme", "team"}}});
    const PlainRow first = key(1, {.plan = "free"}, "acme");
    const PlainRow second = key(2, {.plan = "free"}, "acme");
    const PlainRow third = key(3, {.plan = "free"}, "acme");
    apply({first, second, third});
    EXPECT_EQ(passes(first, 6), 6u);
    EXPECT_EQ(passes(second, 10), 10u);
    grow(1000);
    EXPECT_EQ(passes(first, 6), 4u);
    EXPECT_EQ(passes(second, 6), 0u);
    grow(2000);
    EXPECT_EQ(passes(first, 6), 0u);
    EXPECT_EQ(passes(third, 6), 5u) << "25 together, 20 were spent by the others";
}

TEST_P(PoliciesTest, ALimitGoesOnWhereItsPlanHasLostOthers) {
    const LimitRow stays = limit("stays", "10/day");
    const LimitRow shared = limit("shared", "25/day");
    const std::vector<LimitRow> more = {limit("a", "100/day"), limit("b", "100/h")};
    const auto with = [](std::vector<LimitRow> limits, const LimitRow& last) {
        limits.push_back(last);
        return limits;
    };
    set({.plans = {{"free", with(more, stays)}, {"team", with(more, shared)}}, .owners = {{"acme", "team"}}});
    const PlainRow first = key(1, {.plan = "free"}, "acme");
    const PlainRow second = key(2, {}, "acme");
    apply({first, second});
    EXPECT_EQ(passes(first, 6), 6u);
    EXPECT_EQ(passes(second, 10), 10u);
    set({.plans = {{"free", {stays}}, {"team", {shared}}}, .owners = {{"acme", "team"}}});
    EXPECT_EQ(passes(first, 1), 1u);
    grow(1000);
    EXPECT_EQ(passes(first, 10), 3u) << "of ten, seven were spent in the generation before";
    EXPECT_EQ(passes(second, 10), 5u) << "25 together";
    set({.plans = {{"free", {limit("c", "2/h"), stays}}, {"team", {shared}}}, .owners = {{"acme", "team"}}});
    grow(2000);
    EXPECT_EQ(passes(first, 3), 0u);
    set({.plans = {{"free", {limit("c", "2/h")}}, {"team", {}}}, .owners = {{"acme", "team"}}});
    EXPECT_EQ(passes(first, 5), 2u) << "nothing was spent by what was refused";
}

// A plan that changes between announcement and publication: the announced file numbers a new limit's word by
// itself, and the current one has to follow.
TEST_P(PoliciesTest, APlanHasTheWordsOfTheAnnouncedFileOrIsLookedForThere) {
    const LimitRow stays = limit("stays", "10/day");
    const PlanRow other{"other", {limit("fast", "9/s", 9)}};
    const PolicySet before{.plans = {{"free", {stays}}, other}};
    set({.plans = {{"free", {limit("a", "100/day"), stays}}, other}});
    apply({key(1, {.plan = "free"})});
    set(before);  // where it stays the second word
    shm::TableWriter& table = publisher_->current()->table();
    const BuildOrder order{.directory_fd = publisher_->directory().fd(),
                           .generation = table.view().generation + 1,
                           .predecessor = table.view().generation,
                           .clients_group = getgid(),
                           .capacity_keys = 100,
                           .policies = std::make_shared<const PolicySet>(before)};
    const auto announced = build_generation(order, &table.view(), {});
    ASSERT_TRUE(announced) << announced.error().message;
    shm::TableWriter& next = (*announced)->table();
    const auto words = [](const shm::TableView& view, uint32_t plan) {
        std::vector<unsigned> numbers;
        const shm::ListReader<shm::Limit> limits(view, plan_body(view, plan));
        for (uint32_t i = 0; i < limits.count(); ++i) {
            numbers.push_back(limits.get(i).word);
        }
        return numbers;
    };
    const auto elsewhere = [&](uint32_t plan) {
        return plan_body(table.view(), plan) == shm::kPlanElsewhere;
    };
    const PolicySet now{.plans = {{"free", {stays, limit("b", "7/day")}}, other}};
    ASSERT_TRUE(set_policies(next, now));
    set_policies_in_superseded(table, now, &next.view());
    EXPECT_EQ(words(table.view(), 1), (std::vector<unsigned>{1, 0})) << "the third of its own would be 2";
    EXPECT_EQ(words(next.view(), 1), (std::vector<unsigned>{1, 0}));
    set_policies_in_superseded(table, {.plans = {{"free", {stays}}, other}}, &next.view());
    EXPECT_TRUE(elsewhere(1)) << "the announced file says another plan";
    EXPECT_FALSE(elsewhere(2));
    set_policies_in_superseded(table, now, &next.view());
    EXPECT_FALSE(elsewhere(1));
}

TEST_P(PoliciesTest, AWordThatAFileHasNotIsLookedForInTheAnnouncedOne) {
    const LimitRow last = limit("last", "10/day");
    set({.plans = {{"free", {limit("a", "9/day")}}}});
    apply({key(1, {.plan = "free"})});
    shm::TableWriter& table = publisher_->current()->table();
    const PolicySet more{.plans = {{"free", {limit("a", "9/day"), limit("b", "9/day"), last}}}};
    const BuildOrder order{.directory_fd = publisher_->directory().fd(),
                           .generation = table.view().generation + 1,
                           .predecessor = table.view().generation,
                           .clients_group = getgid(),
                           .capacity_keys = 100,
                           .policies = std::make_shared<const PolicySet>(more)};
    const auto announced = build_generation(order, &table.view(), {});
    ASSERT_TRUE(announced) << announced.error().message;
    const PolicySet now{.plans = {{"free", {last}}}};  // the third word there, and there are two here
    ASSERT_TRUE(set_policies((*announced)->table(), now));
    set_policies_in_superseded(table, now, &(*announced)->table().view());
    EXPECT_EQ(plan_body(table.view(), 1), shm::kPlanElsewhere);
}

TEST_P(PoliciesTest, WhatTheCurrentFileCannotSayIsLookedForInTheOneThatIsAnnounced) {
    const PolicySet policies{.plans = {{"free", {limit("daily", "10/day")}}}};
    set(policies);
    const PlainRow limited = key(1, {.plan = "free"});
    const PlainRow plain = key(2);
    apply({limited, plain});
    EXPECT_EQ(passes(limited, 4), 4u);
    const GenerationPtr& current = publisher_->current();
    const BuildOrder order{.directory_fd = publisher_->directory().fd(),
                           .generation = current->number() + 1,
                           .predecessor = current->number(),
                           .clients_group = getgid(),
                           .capacity_keys = 100,
                           .policies = std::make_shared<const PolicySet>(policies)};
    auto next = build_generation(order, &current->table().view(), {});
    ASSERT_TRUE(next) << next.error().message;
    ASSERT_TRUE((*next)->name_files());
    publisher_->control().announce(order.generation);
    const auto change_without_room = [&](const PlainRow& key) {
        apply_change_to_superseded(current->table(), {Change::Kind::kUpsert, key.row},
                                   /*said_in_next=*/false);
    };
    change_without_room(key(2, {.plan = "free"}));
    apikey_client* asks = open();
    EXPECT_EQ(client::explain(asks, plain.row.id.c_str(), client::Asked{}).code, APIKEY_VALID);
    apikey_close(asks);
    EXPECT_EQ(passes(plain, 20), 20u)
        << "nothing is taken of a plan that the announced file has it not under";
    current->table().policies().set_plan_elsewhere("free");
    EXPECT_EQ(passes(limited, 10), 6u) << "and there its meters go on";
    PlainRow revoked = plain;
    revoked.row.state = KeyState::kRevoked;
    change_without_room(revoked);
    apikey_client* in_current = open();  // the other has gone on to the announced file
    apikey_verdict verdict;
    EXPECT_EQ(apikey_validate(in_current, plain.text.data(), plain.text.size(), &verdict), APIKEY_REVOKED)
        << "what tightens is in force";
    apikey_close(in_current);
}

TEST_P(PoliciesTest, AClientThatIsLeftBehindSpendsWhereTheOthersDo) {
    set({.scopes = {}, .plans = {{"free", {limit("daily", "10/day")}}}, .owners = {}});
    const PlainRow limited = key(1, {.plan = "free"});
    apply({limited});
    apikey_client* behind = open();
    apikey_verdict verdict;
    ASSERT_EQ(apikey_validate(behind, limited.text.data(), limited.text.size(), &verdict), APIKEY_VALID);
    apikey_refresh(behind);  // as a housekeeping: for some time its requests stay where they are
    grow(1000);
    grow(2000);
    EXPECT_EQ(passes(limited, 5), 5u);
    for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(apikey_validate(behind, limited.text.data(), limited.text.size(), &verdict), APIKEY_VALID);
    }
    EXPECT_EQ(apikey_validate(behind, limited.text.data(), limited.text.size(), &verdict),
              APIKEY_USAGE_EXCEEDED);
    apikey_close(behind);
}

TEST_P(PoliciesTest, APlanThatAFileCannotSayIsLookedForInTheCurrentOne) {
    set({.scopes = {}, .plans = {{"free", {limit("daily", "10/day")}}}, .owners = {}});
    const PlainRow limited = key(1, {.plan = "free"});
    apply({limited});
    EXPECT_EQ(passes(limited, 1), 1u);
    apikey_refresh(client_);  // as a housekeeping: its requests may stay where they are
    grow(1000);
    ASSERT_EQ(publisher_->superseded().size(), 1u);
    publisher_->superseded()[0]->table().policies().set_plan_elsewhere("free");
    EXPECT_EQ(passes(limited, 20), 9u);
    apikey_status_info info{};
    info.size = sizeof info;
    apikey_status(client_, &info);
    EXPECT_EQ(info.generation, publisher_->current()->number());
    publisher_->current()->table().policies().set_plan_elsewhere("free");
    EXPECT_EQ(ask(limited), APIKEY_UNAVAILABLE) << "it is nowhere else";
}

TEST_P(PoliciesTest, APlanTooLargeForTheTableIsBuilt) {
    set({.scopes = {}, .plans = {{"free", {limit("a", "10/day")}}}, .owners = {}});
    const PlainRow limited = key(1, {.plan = "free"});
    apply({limited});
    EXPECT_EQ(passes(limited, 4), 4u);
    std::vector<LimitRow> many;
    for (const char* name : {"a", "b", "c", "d", "e", "f"}) {
        many.push_back(limit(name, "8/day"));
    }
    const uint32_t before = publisher_->current()->number();
    set({.scopes = {}, .plans = {{"free", many}}, .owners = {}});
    int told_before = told_;
    publisher_->make_room_for({}, told());
    run_until([&] { return told_ > told_before; });
    EXPECT_NE(publisher_->current()->number(), before);
    EXPECT_EQ(passes(limited, 10), 4u) << "of `a` four were spent already";
}

TEST_P(PoliciesTest, APlanThatWaitsForAGenerationWaitsOnWhenThatCannotBeNamed) {
    set({.plans = {{"free", {limit("a", "10/day")}}}});
    const PlainRow limited = key(1, {.plan = "free"});
    apply({limited});
    std::vector<LimitRow> many;
    for (const char* name : {"a", "b", "c", "d"}) {
        many.push_back(limit(name, "4/day"));
    }
    // Whatever number comes next is taken already.
    std::vector<std::string> taken;
    for (uint32_t i = 1; i < 300; ++i) {
        taken.push_back(publisher_->directory().path() + "/cells." +
                        std::to_string(publisher_->current()->number() + i));
        std::ofstream(taken.back()) << "somebody's";
    }
    set({.plans = {{"free", many}}});
    std::optional<Result<void>> outcome;
    publisher_->make_room_for({}, [&](Result<void> result) { outcome = std::move(result); });
    run_until([&] { return outcome.has_value(); });
    EXPECT_FALSE(*outcome);
    EXPECT_EQ(passes(limited, 1), 1u) << "what was in force goes on";
    for (const std::string& path : taken) {
        std::filesystem::remove(path);
    }
    const int before = told_;
    publisher_->make_room_for({}, told());
    run_until([&] { return told_ > before; });
    EXPECT_EQ(passes(limited, 10), 3u) << "of four, one was spent";
}

TEST_P(PoliciesTest, AnOwnerThatAFileHasNoRoomForIsLookedForInTheCurrentOne) {
    set({});
    const PlainRow shared = key(1, {}, "owner99");
    apply({shared});
    EXPECT_EQ(passes(shared, 1), 1u);
    apikey_refresh(client_);  // as a housekeeping: its requests may stay where they are
    grow(1000);
    PolicySet policies{.plans = {{"team", {limit("together", "3/day")}}}};
    for (int i = 0; i < 100; ++i) {
        policies.owners.push_back({"owner" + std::to_string(i), "team"});
    }
    set(policies);
    apply({shared});  // as a load would have it changed
    ASSERT_EQ(publisher_->superseded().size(), 2u);
    EXPECT_EQ(passes(shared, 10), 3u);
}

TEST_P(PoliciesTest, CellsThatCannotBeWrittenAreNoMeters) {
    set({.scopes = {}, .plans = {{"free", {limit("daily", "1/day")}}}, .owners = {}});
    const PlainRow limited = key(1, {.plan = "free"});
    const PlainRow plain = key(2);
    apply({limited, plain});
    for (const apikey_metering metering : {APIKEY_METERING_REQUIRED, APIKEY_METERING_OPTIONAL}) {
        apikey_options options{};
        options.metering = metering;
        apikey_client* reader = open(options);
        uint8_t* base = nullptr;
        {  // as one that may not write would have it
            const client::Reading reading(reader);
            base = std::exchange(reading.mapping()->generation.cells.base, nullptr);
        }
        apikey_verdict verdict;
        EXPECT_EQ(apikey_validate(reader, plain.text.data(), plain.text.size(), &verdict), APIKEY_VALID);
        const apikey_code code = apikey_validate(reader, limited.text.data(), limited.text.size(), &verdict);
        EXPECT_EQ(code, metering == APIKEY_METERING_OPTIONAL ? APIKEY_VALID : APIKEY_UNAVAILABLE);
        EXPECT_EQ((verdict.flags & APIKEY_FLAG_NOT_METERED) != 0, metering == APIKEY_METERING_OPTIONAL);
        {
            const client::Reading reading(reader);
            reading.mapping()->generation.cells.base = base;
        }
        apikey_close(reader);
    }
}

TEST_P(PoliciesTest, ScribbledMetersAreBounded) {
    set({.scopes = {},
         .plans = {{"free", {limit("daily", "10/day"), limit("fast", "100/s", 10)}}},
         .owners = {}});
    const PlainRow limited = key(1, {.plan = "free"});
    apply({limited});
    std::mt19937_64 random(5);
    const shm::CellsView& cells = publisher_->current()->cells();
    const uint64_t index = found(limited.row).index;
    for (int i = 0; i < 2000; ++i) {
        cells.meter(index, static_cast<uint32_t>(i % 2)).store(i % 5 == 0 ? ~uint64_t{0} : random());
        const apikey_code code = ask(limited);
        ASSERT_TRUE(code == APIKEY_VALID || code == APIKEY_RATE_LIMITED || code == APIKEY_USAGE_EXCEEDED)
            << apikey_code_name(code);
    }
    cells.meter(index, 0).store(0);
    cells.meter(index, 1).store(0);
    EXPECT_EQ(passes(limited, 11), 10u);
}

TEST_P(PoliciesTest, AMeterTooFarAheadIsBroughtBackByWhoIsRefused) {
    set({.scopes = {},
         .plans = {{"free", {limit("daily", "10/day"), limit("fast", "100/s", 10)}}},
         .owners = {}});
    const PlainRow limited = key(1, {.plan = "free"});
    apply({limited});
    EXPECT_EQ(ask(limited), APIKEY_VALID);
    const shm::CellsView& cells = publisher_->current()->cells();
    const uint64_t index = found(limited.row).index;
    shm::Word& daily = cells.meter(index, 0);
    shm::Word& fast = cells.meter(index, 1);
    const uint64_t spent = daily.load();
    const uint64_t period = shm::QuotaWord::period(spent);
    daily.store(shm::QuotaWord::make(shm::QuotaWord::tag(spent), period + 300, 10));
    EXPECT_EQ(ask(limited), APIKEY_USAGE_EXCEEDED);
    EXPECT_LE(shm::QuotaWord::ahead(daily.load(), period), 1) << "what is spent is this day's";
    EXPECT_EQ(shm::QuotaWord::used(daily.load()), 10u);
    daily.store(0);
    constexpr uint64_t kHour = 3600 * uint64_t{1'000'000'000} / shm::kMeterUnit_ns;
    fast.store(fast.load() + kHour);
    EXPECT_EQ(ask(limited), APIKEY_RATE_LIMITED);
    const uint64_t now = client::coarse_now_ns() / shm::kMeterUnit_ns;
    EXPECT_LT(shm::RateWord::ahead(fast.load(), now), kHour / 2);
}

/// Limits by the book: a list of what each let pass.
class SlowLimit {
  public:
    SlowLimit(const LimitRow& row) : row_(row) {}
    bool fits(uint64_t now_ns, uint32_t cost) const {
        if (row_.form != LimitForm::kRate) {
            return used(now_ns) + cost <= row_.requests;
        }
        return backlog(now_ns) + cost * interval() <= row_.burst * interval();
    }
    void take(uint64_t now_ns, uint32_t cost) {
        if (row_.form == LimitForm::kRate) {
            full_at_ = now_ns / 8 + backlog(now_ns) + cost * interval();
        } else {
            spent_[period(now_ns)] += cost;
        }
    }
    bool shadow() const { return row_.shadow; }

  private:
    uint64_t interval() const {
        return (row_.rate_seconds * uint64_t{125'000'000} + row_.requests - 1) / row_.requests;
    }
    uint64_t backlog(uint64_t now_ns) const { return full_at_ > now_ns / 8 ? full_at_ - now_ns / 8 : 0; }
    std::string period(uint64_t now_ns) const {
        const time_t now = static_cast<time_t>(now_ns / 1'000'000'000);
        tm date{};
        gmtime_r(&now, &date);
        char text[32];
        strftime(text, sizeof text,
                 row_.form == LimitForm::kQuotaPerMonth ? "%Y-%m"
                 : row_.form == LimitForm::kQuotaPerDay ? "%Y-%m-%d"
                                                        : "%Y-%m-%dT%H",
                 &date);
        return text;
    }
    uint64_t used(uint64_t now_ns) const {
        const auto found = spent_.find(period(now_ns));
        return found != spent_.end() ? found->second : 0;
    }

    LimitRow row_;
    uint64_t full_at_ = 0;
    std::map<std::string, uint64_t> spent_;
};

LimitRow random_limit(std::mt19937_64& random, const std::string& name) {
    LimitRow row;
    row.name = name;
    row.form = static_cast<LimitForm>(random() % 4);
    row.requests = 1 + random() % 50;
    if (row.form == LimitForm::kRate) {
        row.rate_seconds = std::vector<uint32_t>{1, 60, 3600}[random() % 3];
        row.burst = static_cast<uint32_t>(1 + random() % 40);
    }
    row.shadow = random() % 5 == 0;
    return row;
}

TEST_P(PoliciesTest, RandomPlansAgreeWithLimitsByTheBook) {
    std::mt19937_64 random(11);
    std::vector<PlanRow> plans;
    constexpr unsigned kPlans = 40;
    for (unsigned i = 0; i < kPlans; ++i) {
        PlanRow plan{"plan" + std::to_string(i), {}};
        for (unsigned j = 0; j <= random() % 6; ++j) {
            plan.limits.push_back(random_limit(random, "limit" + std::to_string(j)));
        }
        if (i % 5 == 1) {
            plan.limits = {limit("rate", std::to_string(1 + random() % 50) + "/min", 1 + i)};
        }
        plans.push_back(std::move(plan));
    }
    set({.scopes = {}, .plans = plans, .owners = {{"acme", "plan0"}}});
    std::vector<PlainRow> keys;
    for (unsigned i = 0; i < kPlans; ++i) {
        keys.push_back(key(i, {.plan = "plan" + std::to_string(i)}, i % 2 == 0 ? "acme" : ""));
    }
    apply(keys);
    client::Mapping mapping{};
    const shm::AttachOptions options{publisher_->directory().path().c_str(), shm::kAnyOwner};
    ASSERT_EQ(shm::attach_control(options, &mapping.control), shm::AttachResult::kOk);
    ASSERT_EQ(shm::attach_generation(options, mapping.control, publisher_->current()->number(),
                                     &mapping.generation),
              shm::AttachResult::kOk);
    std::vector<std::vector<SlowLimit>> slow(kPlans);
    std::vector<SlowLimit> shared;
    for (unsigned i = 0; i < kPlans; ++i) {
        slow[i].assign(plans[i].limits.begin(), plans[i].limits.end());
    }
    shared.assign(plans[0].limits.begin(), plans[0].limits.end());
    uint64_t now_ns = client::coarse_now_ns();
    unsigned passed = 0;
    unsigned without_bill = 0;
    for (unsigned step = 0; step < 40'000; ++step) {
        now_ns += random() % 4 == 0 ? random() % 600'000'000'000 : random() % 50'000'000;
        simulated_ns = now_ns;
        const unsigned number = static_cast<unsigned>(random() % kPlans);
        const auto cost = static_cast<uint32_t>(1 + random() % (random() % 8 == 0 ? 60 : 3));
        bool expected = true;
        const auto all = [&](auto visit) {
            for (SlowLimit& one : slow[number]) {
                visit(one);
            }
            for (SlowLimit& one : shared) {
                if (number % 2 == 0) {
                    visit(one);
                }
            }
        };
        all([&](SlowLimit& one) { expected = expected && (one.shadow() || one.fits(now_ns, cost)); });
        if (expected) {
            all([&](SlowLimit& one) {
                if (one.fits(now_ns, cost)) {
                    one.take(now_ns, cost);
                }
            });
        }
        const shm::Found place = found(keys[number].row);
        const shm::Policy& policy = stored_policy(mapping.generation.table, place.meta);
        client::Spent spent = client::Spent::kByBill;
        if (random() % 2 == 0) {
            spent = client::spend_single_rate(mapping, place, policy, cost, now_ns, nullptr);
            without_bill += spent != client::Spent::kByBill ? 1 : 0;
        }
        if (spent == client::Spent::kByBill) {
            client::Bill bill;
            client::Bill::Owed owed;
            ASSERT_EQ(bill.draw_up(mapping, {place.index, keys[number].row.digest.data(),
                                             keys[number].row.id.data(), place.meta, &policy}),
                      client::Spent::kAll);
            spent = bill.spend(cost, now_ns, &owed);
        }
        ASSERT_EQ(spent == client::Spent::kAll, expected) << "step " << step;
        passed += expected ? 1 : 0;
    }
    simulated_ns = 0;
    EXPECT_GT(passed, 4000u);
    EXPECT_LT(passed, 36'000u);
    EXPECT_GT(without_bill, 100u);
    shm::detach_generation(&mapping.generation);
    shm::detach_control(&mapping.control);
}

// As who was halted between its look at the plan and the meters.
TEST_P(PoliciesTest, ABillByFiguresThatWereRaisedTakesNothingBack) {
    constexpr uint64_t kBefore = 2;
    constexpr uint64_t kNow = 50;
    for (const bool alone : {true, false}) {
        SCOPED_TRACE(alone);
        const auto plan_of = [&](uint32_t burst) {
            PlanRow plan{"free", {limit("fast", "1/h", burst)}};
            if (!alone) {
                plan.limits.push_back(limit("daily", "1000/day"));
            }
            return PolicySet{.plans = {plan}};
        };
        set(plan_of(kBefore));
        const PlainRow limited = key(alone ? 1 : 2, {.plan = "free"});
        apply({limited});
        ASSERT_EQ(ask(limited), APIKEY_VALID);
        apikey_client* halted_client = open();
        const client::Mapping& mapping = *client::Reading(halted_client).mapping();  // it never switches
        const shm::Found place =
            find_slot(mapping.generation.table, row_hash(limited.row, mapping.generation.table.hash_seed),
                      row_digest(limited.row));
        const shm::Policy& policy = stored_policy(mapping.generation.table, place.meta);
        client::Bill halted;
        client::Bill::Owed owed;
        ASSERT_EQ(halted.draw_up(mapping, {place.index, limited.row.digest.data(), limited.row.id.data(),
                                           place.meta, &policy}),
                  client::Spent::kAll);
        set(plan_of(kNow));
        EXPECT_EQ(passes(limited, 60), kNow - 1);
        EXPECT_EQ(halted.spend(1, client::coarse_now_ns(), &owed), client::Spent::kStale);
        EXPECT_EQ(passes(limited, 60), 0u) << "the burst was spent";
        apikey_close(halted_client);
    }
}

TEST_P(PoliciesTest, ATableTellsItsPoliciesBack) {
    PolicySet policies{.scopes = {"a.b", "c.d"},
                       .plans = {{"free", {limit("x", "5/min", 9), limit("y", "7/month", 0, true)}},
                                 {"team", {limit("z", "100/d")}}},
                       .owners = {{"acme", "team"}}};
    set(policies);
    const PlainRow full = key(1,
                              {.scopes = {"a.*", "c.d"},
                               .plan = "free",
                               .addresses = {*parse_address_range("10.0.0.0/8")},
                               .overrides = {limit("x", "6/s", 3)}},
                              "acme");
    apply({full});
    const shm::TableView& table = publisher_->current()->table().view();
    EXPECT_EQ(policies_of(table), policies);
    std::optional<KeyRow> stored = row_of_slot(table, found(full.row).index);
    ASSERT_TRUE(stored);
    stored->digest = full.row.digest;
    EXPECT_EQ(*stored, full.row);
    EXPECT_TRUE(publisher_->current()->table().scan());
}

TEST_P(PoliciesTest, ATagTellsARateFromAQuota) {
    PolicySet policies;
    for (unsigned i = 0; i < 500; ++i) {
        policies.plans.push_back(
            {"plan" + std::to_string(i), {limit("x", "5/min", 9), limit("y", "7/month")}});
    }
    set(policies);
    apply({key(1, {.plan = "plan1"})});
    const shm::TableView& table = publisher_->current()->table().view();
    size_t seen = 0;
    for (uint32_t plan = 1; plan <= policies.plans.size(); ++plan) {
        const shm::ListReader<shm::Limit> limits(table, shm::plan_body(table, plan));
        for (uint32_t number = 0; number < limits.count(); ++number) {
            const shm::Limit limit = limits.get(number);
            const bool is_rate = limit.kind == shm::LimitKind::kRate;
            const uint64_t word =
                is_rate ? shm::RateWord::make(limit.tag, 0) : shm::QuotaWord::make(limit.tag, 0, 0);
            EXPECT_EQ((word & shm::kRateBit) != 0, is_rate) << plan;
            EXPECT_EQ(word & shm::kMovedBit, 0u) << plan;
            EXPECT_NE(word, 0u) << plan;
            ++seen;
        }
    }
    EXPECT_EQ(seen, 2 * policies.plans.size());
}

TEST_P(PoliciesTest, TenThousandPlans) {
    PolicySet policies;
    std::vector<PlainRow> keys;
    for (unsigned i = 0; i < 10'000; ++i) {
        policies.plans.push_back(
            {"plan" + std::to_string(i), {limit("daily", std::to_string(i % 7 + 1) + "/day")}});
    }
    set(policies);
    for (unsigned i = 0; i < 10'000; i += 97) {
        keys.push_back(key(i, {.plan = "plan" + std::to_string(i)}));
    }
    apply(keys);
    for (size_t i = 0; i < keys.size(); i += 7) {
        EXPECT_EQ(passes(keys[i], 10), (i * 97) % 7 + 1);
    }
}

}  // namespace
}  // namespace apikeyd
