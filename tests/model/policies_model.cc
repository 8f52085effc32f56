// The daemon names a scope, grants it to a key and changes its plan, while two threads of a server ask for
// the scope by one compiled expression, and one of them compiles another.
//
// Promises: after it was told that the key is granted the scope, every request that asks for it is VALID or
// refused by the plan; nobody else is granted it; a plan, a policy and a name are whole wherever they are
// read; masks that one thread keeps serve the other.

#include "client/scopes.h"
#include "core/table_policies.h"
#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

/// The second time with one plan more, which is the owner's from then on.
apikeyd::PolicySet policies_of(uint64_t allowance, std::vector<std::string> scopes) {
    apikeyd::LimitRow limit;
    limit.name = "monthly";
    limit.form = apikeyd::LimitForm::kQuotaPerMonth;
    limit.requests = allowance;
    apikeyd::PolicySet set;
    set.scopes = std::move(scopes);
    set.plans = {{"plan", {limit}}};
    set.owners = {{"owner", "plan"}};
    if (allowance != 1) {
        set.plans.push_back({"other", {limit}});
        set.owners = {{"owner", "other"}};
    }
    return set;
}

KeyRow granted(const ModelKey& key, std::vector<std::string> scopes) {
    KeyRow row = key.row;
    auto terms = std::make_shared<apikeyd::KeyTerms>();
    terms->scopes = std::move(scopes);
    terms->plan = "plan";
    row.terms = terms;
    row.owner = "owner";
    return row;
}

class Policies : public Scenario {
  public:
    void before() override {
        daemon_.set_policies(policies_of(1, {"a"}));
        daemon_.switch_to(1, {granted(key_, {"a"}), granted(other_, {"a"})});
        server_.open(2);
        static apikey_scopes expression;
        std::memset(static_cast<void*>(&expression), 0, sizeof expression);
        expression_ = &expression;
        expect(client::compile_scopes(nullptr, "b", expression_, nullptr) == APIKEY_OK, "an expression");
    }

    void thread(unsigned number) override {
        if (number == 0) {
            daemon_.change_policies(policies_of(100, {"a", "b"}));
            daemon_.change(granted(key_, {"a", "b"}));
            told_.store(1, std::memory_order_release);
            return;
        }
        const bool told = told_.load(std::memory_order_acquire) != 0;
        if (number == 1) {
            apikey_scopes* compiled = nullptr;
            const apikey_result named = apikey_scopes_compile(server_.client(), "b", &compiled, nullptr);
            expect(named == APIKEY_OK || (!told && named == APIKEY_UNKNOWN_SCOPE),
                   "a scope's name is known once it was told");
            apikey_scopes_free(compiled);
        }
        const apikey_code code = ask(number - 1, key_);
        expect(told ? code == APIKEY_VALID
                    : code == APIKEY_VALID || code == APIKEY_USAGE_EXCEEDED ||
                          code == APIKEY_INSUFFICIENT_PERMISSIONS,
               "a scope is granted once it was told");
        expect(ask(number - 1, other_) == APIKEY_INSUFFICIENT_PERMISSIONS,
               "a scope is granted to nobody else");
        const apikey_code other = server_.validate(number - 1, other_);
        expect(other == APIKEY_VALID || other == APIKEY_USAGE_EXCEEDED,
               "a plan says something wherever it is read");
    }

    void after() override { server_.close(); }

  private:
    apikey_code ask(unsigned thread, const ModelKey& key) {
        return server_.validate(thread, key, nullptr, {.scopes = expression_});
    }

    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    apikey_scopes* expression_ = nullptr;
    shm::Atomic<uint32_t> told_{0};
    const ModelKey key_{'a'};
    const ModelKey other_{'b'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Policies>(argc, argv, 3);
}
