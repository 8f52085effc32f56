// A daemon announces a generation and is killed; the next one finishes the switch, while a server goes over.
//
// Promise: a key of the new generation is accepted by every call that begins after it was published.

#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

class Finish : public Scenario {
  public:
    void before() override {
        daemon_.switch_to(1, {});
        server_.open(Server::kThreads);
        daemon_.start_build();
    }

    void thread(unsigned number) override {
        if (number == 0) {
            daemon_.build(2, {{Change::Kind::kUpsert, added_.row}});
            daemon_.announce_built(2);
            ended_.store(1, std::memory_order_release);  // the instance's lock is free
        } else if (number == 1) {
            if (ended_.load(std::memory_order_acquire) != 0) {
                daemon_.publish_built();
                told_.store(1, std::memory_order_release);
            }
        } else {
            const bool told = told_.load(std::memory_order_acquire) != 0;
            const apikey_code code = server_.validate(0, added_);
            expect(code == APIKEY_VALID || (!told && code == APIKEY_MALFORMED),
                   "a key is accepted once it was told that it is there");
        }
    }

    void after() override { server_.close(); }

  private:
    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    shm::Atomic<uint32_t> ended_{0};
    shm::Atomic<uint32_t> told_{0};
    const ModelKey added_{'a'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Finish>(argc, argv, 3);
}
