// Two threads of a server present keys that only later generations have, so that both go over at once, twice:
// one finds its work done by the other, and mappings' nodes are used again.
//
// Promises: a key is accepted by every call that begins after it was told that it is there; nothing is read
// of a mapping before it was seen to begin, or after it ended; what was replaced is not forgotten.

#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

class Refuse : public Scenario {
  public:
    void before() override {
        daemon_.switch_to(1, {});
        server_.open(Server::kThreads + 1);
    }

    void thread(unsigned number) override {
        if (number == 0) {
            daemon_.switch_to(2, {second_.row});
            told_second_.store(1, std::memory_order_release);
            daemon_.switch_to(3, {second_.row, third_.row});
            told_third_.store(1, std::memory_order_release);
            // A third thread of the server, which was at no switch: it may find what others have left.
            present(Server::kThreads, third_, told_third_);
            return;
        }
        present(number - 1, second_, told_second_);
        present(number - 1, third_, told_third_);
        present(number - 1, second_, told_second_);
    }

    void after() override { server_.close(); }

  private:
    void present(unsigned thread, const ModelKey& key, const shm::Atomic<uint32_t>& told) {
        const bool there = told.load(std::memory_order_acquire) != 0;
        const apikey_code code = server_.validate(thread, key);
        expect(code == APIKEY_VALID || (!there && code == APIKEY_MALFORMED),
               "a key is accepted once it was told that it is there");
    }

    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    shm::Atomic<uint32_t> told_second_{0};
    shm::Atomic<uint32_t> told_third_{0};
    const ModelKey second_{'a'};
    const ModelKey third_{'b'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Refuse>(argc, argv, 3);
}
