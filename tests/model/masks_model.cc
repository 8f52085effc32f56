// Three threads of a server ask for a scope by one expression: two of them in one generation, the third in a
// later one, where the same bits are other scopes, and whose masks are kept in the same place.
//
// Promise: a key is granted what its scopes say, and nothing else, whoever has kept masks meanwhile.

#include "client/scopes.h"
#include "core/table_policies.h"
#include "tests/model/table_memory.h"

namespace apikey::model {
namespace {

constexpr uint32_t kFirst = 1;
constexpr uint32_t kLater = 3;
constexpr uint64_t kGranted[apikey_scopes::kMaskWords] = {1};

class Masks : public Scenario {
  public:
    void before() override {
        define(kFirst, {"a", "b"});
        define(kLater, {"b", "a"});
        std::memset(static_cast<void*>(&expression()), 0, sizeof expression());
        expect(client::compile_scopes(nullptr, "a", &expression(), nullptr) == APIKEY_OK, "an expression");
    }

    void thread(unsigned number) override { ask(number == 2 ? kLater : kFirst); }

  private:
    static TableMemory& table(uint32_t generation) {
        static TableMemory tables[2];
        return tables[generation / 2];
    }
    static apikey_scopes& expression() {
        static apikey_scopes expression;
        return expression;
    }
    static void define(uint32_t generation, std::vector<std::string> scopes) {
        table(generation).format(generation);
        apikeyd::PolicySet set;
        set.scopes = std::move(scopes);
        expect(apikeyd::set_policies(table(generation).writer(), set), "policies find room");
    }
    static void ask(uint32_t generation) {
        for (int i = 0; i < 2; ++i) {
            expect(
                client::grants(table(generation).view(), kGranted, &expression()) == (generation == kFirst),
                "a key is granted what its scopes say");
        }
    }
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Masks>(argc, argv, 3);
}
