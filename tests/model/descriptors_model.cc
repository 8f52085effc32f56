// Two threads of a server go over to another generation, and the first attach finds no descriptor.
//
// Promises: what one attach left is whole for the next, whoever makes it; a refusal then is UNAVAILABLE.

#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

class Descriptors : public Scenario {
  public:
    void before() override {
        daemon_.switch_to(1, {stable_.row});
        server_.open(2);
    }

    void thread(unsigned number) override {
        if (number == 0) {
            daemon_.switch_to(2, {stable_.row, added_.row}, true);
            return;
        }
        for (int i = 0; i < 2; ++i) {
            const apikey_code added = server_.validate(number - 1, added_);
            expect(added == APIKEY_VALID || added == APIKEY_MALFORMED || added == APIKEY_UNAVAILABLE,
                   "a key is there, or not yet, or cannot be looked for");
        }
        expect(server_.validate(number - 1, stable_) == APIKEY_VALID, "a key that stays valid is accepted");
    }

    void after() override { server_.close(); }

  private:
    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    const ModelKey stable_{'a'};
    const ModelKey added_{'b'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Descriptors>(argc, argv, 3);
}
