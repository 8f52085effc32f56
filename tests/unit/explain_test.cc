// Promise: an explanation says what a request would be answered with, and why; it spends and counts nothing.

#include "client/explain.h"

#include <map>
#include <random>

#include "plain_row.h"
#include "publisher_fixture.h"

namespace apikeyd {
namespace {

namespace client = apikey::client;
using client::Asked;
using client::Explanation;
using client::Finding;

class ExplainTest : public PublisherFixture {
  protected:
    void TearDown() override {
        for (apikey_client* one : clients_) {
            apikey_close(one);
        }
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
    void apply(const std::vector<PlainRow>& keys, Change::Kind kind = Change::Kind::kUpsert) {
        std::vector<Change> changes;
        for (const PlainRow& one : keys) {
            changes.push_back({kind, one.row});
        }
        const int before = told_;
        publisher_->apply(changes, told());
        run_until([&] { return told_ == before + 1; });
    }
    apikey_client* open(const char* environment = nullptr) {
        apikey_options options{};
        options.size = sizeof options;
        options.directory = directory_.path().c_str();
        options.required_environment = environment;
        EXPECT_EQ(apikey_open(&options, &clients_.emplace_back()), APIKEY_OK);
        return clients_.back();
    }
    static apikey_code ask(apikey_client* one, const PlainRow& presented, const Asked& asked) {
        apikey_verdict verdict;
        apikey_request request = APIKEY_REQUEST_INIT;
        request.scopes = asked.scopes;
        request.address = asked.address;
        request.cost = asked.cost;
        EXPECT_EQ(
            apikey_validate_request(one, presented.text.data(), presented.text.size(), &request, &verdict),
            APIKEY_OK);
        return verdict.code;
    }
    /// All that clients write.
    std::string cells() const {
        const apikey::shm::CellsView& view = publisher_->current()->cells();
        return {reinterpret_cast<const char*>(view.base), view.bytes};
    }

    std::vector<apikey_client*> clients_;
};
INSTANTIATE_TEST_SUITE_P(Loop, ExplainTest, testing::Values(LoopKind::epoll), loop_param_name);

/// The code that the findings come to, in the order of the checks.
apikey_code code_of(const Explanation& found) {
    if (found.known != Finding::kPassed) {
        return APIKEY_NOT_FOUND;
    }
    const auto failed = [](Finding finding) { return finding == Finding::kFailed; };
    if (failed(found.state) || failed(found.expiry)) {
        return failed(found.state) ? found.state_code : APIKEY_EXPIRED;
    }
    if (failed(found.environment) || failed(found.address) || failed(found.scopes)) {
        return !failed(found.environment) && failed(found.address) ? APIKEY_IP_NOT_ALLOWED
                                                                   : APIKEY_INSUFFICIENT_PERMISSIONS;
    }
    for (uint32_t i = 0; i < found.limit_count; ++i) {
        if (!found.limits[i].passes && !found.limits[i].shadow) {
            return found.limits[i].rate ? APIKEY_RATE_LIMITED : APIKEY_USAGE_EXCEEDED;
        }
    }
    return APIKEY_VALID;
}

TEST_P(ExplainTest, SaysWhatARequestIsAnsweredAndChangesNothing) {
    std::mt19937 random(1);
    const auto below = [&](unsigned n) { return static_cast<unsigned>(random() % n); };
    // Rates that no test lives to see run off.
    publisher_->set_policies(std::make_shared<const PolicySet>(PolicySet{
        {"a.b", "a.c", "d"},
        {{"one", {limit("burst", "4/d")}},
         {"many", {limit("quiet", "2/day", 0, true), limit("burst", "6/d"), limit("monthly", "7/month")}},
         {"team", {limit("daily", "9/day"), limit("burst", "12/d")}}},
        {{"acme", "team"}}}));
    std::vector<PlainRow> keys;
    for (unsigned number = 0; number < 60; ++number) {
        KeyTerms terms;
        terms.plan = std::vector<std::string>{"", "one", "many"}[below(3)];
        if (terms.plan == "many" && below(2) == 0) {
            terms.overrides = {limit("burst", "3/d")};
        }
        for (const char* scope : {"a.*", "a.b", "d"}) {
            if (below(3) == 0) {
                terms.scopes.emplace_back(scope);
            }
        }
        if (below(3) == 0) {
            terms.addresses = {*parse_address_range("192.0.2.0/24"), *parse_address_range("2001:db8::/32")};
        }
        PlainRow made = key(number, terms, below(2) == 0 ? "acme" : "");
        made.row.state = static_cast<KeyState>(below(6) < 4 ? 0 : 1 + below(2));
        if (below(6) == 0) {
            made.row.expires_s = 1;
        }
        made.row.environment = below(5) == 0 ? "test" : "live";
        made.row.foreign = below(8) == 0;
        keys.push_back(made);
    }
    apply(keys);
    apikey_client* any = open();
    apikey_client* live = open("live");
    apikey_scopes* scopes = nullptr;
    ASSERT_EQ(apikey_scopes_compile(any, "a.b AND (d OR a.c)", &scopes, nullptr), APIKEY_OK);
    apikey_address address;
    ASSERT_EQ(apikey_address_parse("192.0.2.7", 9, &address), APIKEY_OK);
    std::map<apikey_code, unsigned> met;
    for (unsigned i = 0; i < 3000; ++i) {
        const PlainRow& one = keys[below(60)];
        apikey_client* by = below(2) == 0 ? any : live;
        const Asked asked{below(2) == 0 ? scopes : nullptr, below(3) != 0 ? &address : nullptr, 1 + below(2),
                          nullptr};
        const std::string before = cells();
        const Explanation found = client::explain(by, one.row.id.c_str(), asked);
        ASSERT_EQ(cells(), before) << "nothing is spent, nothing counted";
        ASSERT_EQ(code_of(found), found.code);
        ASSERT_EQ(ask(by, one, asked), found.code) << one.row.id;
        EXPECT_STREQ(found.key_environment, one.row.environment.c_str());
        ++met[found.code];
    }
    apikey_scopes_free(scopes);
    for (const apikey_code code :
         {APIKEY_VALID, APIKEY_REVOKED, APIKEY_DISABLED, APIKEY_EXPIRED, APIKEY_IP_NOT_ALLOWED,
          APIKEY_INSUFFICIENT_PERMISSIONS, APIKEY_RATE_LIMITED, APIKEY_USAGE_EXCEEDED}) {
        EXPECT_GT(met[code], 10u) << apikey_code_name(code);
    }
}

TEST_P(ExplainTest, EachLimitIsToldWithWhatIsLeftOfIt) {
    publisher_->set_policies(std::make_shared<const PolicySet>(
        PolicySet{{},
                  {{"free", {limit("quiet", "2/day", 0, true), limit("burst", "6/d", 9)}},
                   {"team", {limit("daily", "9/day")}}},
                  {{"acme", "team"}}}));
    const PlainRow one = key(1, {.plan = "free", .overrides = {limit("burst", "6/d", 7)}}, "acme");
    apply({one, key(2, {}, "acme")});
    apikey_client* by = open();
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(ask(by, one, {}), APIKEY_VALID);
    }
    EXPECT_EQ(ask(by, key(2), {}), APIKEY_VALID);
    Explanation found = client::explain(by, one.row.id.c_str(), Asked{});
    ASSERT_EQ(found.limit_count, 3u);
    const auto told = [](const client::Bill::Look& look) {
        return std::string(look.state.name) + (look.rate ? " rate " : " quota ") +
               (look.of_owner ? "owner " : "key ") + (look.shadow ? "shadow " : "") +
               (look.passes ? "passes " : "refuses ") + std::to_string(look.state.remaining) + "/" +
               std::to_string(look.state.allowance);
    };
    EXPECT_EQ(told(found.limits[0]), "quiet quota key shadow refuses 0/2");
    EXPECT_EQ(told(found.limits[1]), "burst rate key passes 4/7");
    EXPECT_EQ(told(found.limits[2]), "daily quota owner passes 5/9");
    EXPECT_GT(found.limits[1].state.reset_ms, 0u);
    EXPECT_EQ(found.code, APIKEY_VALID);
    found = client::explain(by, one.row.id.c_str(), Asked{.cost = 5});
    EXPECT_EQ(told(found.limits[1]), "burst rate key refuses 4/7");
    EXPECT_EQ(told(found.limits[2]), "daily quota owner passes 5/9");
    EXPECT_EQ(found.code, APIKEY_RATE_LIMITED);
    EXPECT_EQ(client::explain(by, key(2).row.id.c_str(), Asked{}).limit_count, 1u);
}

TEST_P(ExplainTest, KeysAreFoundByTheirIds) {
    PlainRow imported = key(1);
    imported.row.foreign = true;
    const PlainRow gone = key(2);
    apply({imported, gone, key(3)});
    apply({gone}, Change::Kind::kRemove);
    apikey_client* by = open();
    EXPECT_EQ(client::explain(by, imported.row.id.c_str(), Asked{}).code, APIKEY_VALID);
    EXPECT_EQ(client::explain(by, gone.row.id.c_str(), Asked{}).known, Finding::kFailed);
    const Explanation none = client::explain(by, "000000000000", Asked{});
    EXPECT_EQ(none.known, Finding::kFailed);
    EXPECT_EQ(none.code, APIKEY_NOT_FOUND);
}

TEST_P(ExplainTest, AClientThatIsLeftBehindLooksWhereTheMetersAre) {
    publisher_->set_policies(
        std::make_shared<const PolicySet>(PolicySet{{}, {{"free", {limit("daily", "5/day")}}}, {}}));
    const PlainRow one = key(1, {.plan = "free"});
    apply({one});
    apikey_client* by = open();
    EXPECT_EQ(ask(by, one, {}), APIKEY_VALID);
    const uint32_t generation = publisher_->current()->number();
    std::vector<PlainRow> many;
    for (unsigned number = 100; number < 1000; ++number) {
        many.push_back(key(number));
    }
    apply(many);
    ASSERT_NE(publisher_->current()->number(), generation);
    EXPECT_EQ(ask(open(), one, {}), APIKEY_VALID);
    const Explanation found = client::explain(by, one.row.id.c_str(), Asked{});
    ASSERT_EQ(found.limit_count, 1u);
    EXPECT_EQ(found.limits[0].state.remaining, 3u);
    EXPECT_EQ(client::explain(by, many.back().row.id.c_str(), Asked{}).code, APIKEY_VALID);
}

TEST_P(ExplainTest, WithoutATableThereIsNothingToSay) {
    const Explanation found = [&] {
        apikey_options options{};
        options.size = sizeof options;
        options.directory = "/dev/shm/no-such-directory";
        EXPECT_EQ(apikey_open(&options, &clients_.emplace_back()), APIKEY_WAITING);
        return client::explain(clients_.back(), "000000000000", Asked{});
    }();
    EXPECT_EQ(found.code, APIKEY_UNAVAILABLE);
    EXPECT_EQ(found.known, Finding::kNotAsked);
}

}  // namespace
}  // namespace apikeyd
