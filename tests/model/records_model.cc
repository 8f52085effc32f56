// One record for two threads of a server that come and go: who has none is counted in and out, while the
// other switches and unmaps.
//
// Promises: a key that stays valid is never refused, also by a thread that takes over another's record;
// nothing is read of a mapping before it was seen to begin, or after it ended.

#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

class Records : public Scenario {
  public:
    void before() override {
        daemon_.switch_to(1, {stable_.row});
        server_.open(1);
    }

    void thread(unsigned number) override {
        if (number == 0) {
            daemon_.switch_to(2, {stable_.row, added_.row});
            return;
        }
        const apikey_code added = server_.validate(number - 1, added_);
        expect(added == APIKEY_VALID || added == APIKEY_MALFORMED, "a key is there, or not yet");
        Server::end_thread();
        if (number == 1) {
            fail_setspecific();  // then its next call, or the other's, is counted in
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
    return apikey::model::simulate<apikey::model::Records>(argc, argv, 3);
}
