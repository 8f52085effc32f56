// Two switches in a row, and the daemon harvests what nobody maps, while a thread of a server validates: it
// may attach late to what is being harvested, and may be left behind by both switches.
//
// Promises: every answer is counted once, in a generation that had not been harvested; a key that stays valid
// is never refused; one that was revoked in all files that are left is accepted by no call that begins after
// that.

#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

class Harvest : public Scenario {
  public:
    void before() override {
        daemon_.switch_to(1, {stable_.row, revoked_.row});
        server_.open(Server::kThreads);
    }

    void thread(unsigned number) override { number == 0 ? change() : serve(); }

    void after() override {
        daemon_.count_the_rest();
        expect(daemon_.counted_answers() == server_.answers(), "every answer is counted once");
        expect(daemon_.counted_valid() == server_.valid(), "every VALID is counted once for its key");
        server_.close();
    }

  private:
    void change() {
        daemon_.switch_to(2, {stable_.row, revoked_.row});
        daemon_.harvest();
        daemon_.switch_to(3, {stable_.row, revoked_.row});
        daemon_.change(revoked_.as(KeyState::kRevoked));
        told_.store(1, std::memory_order_release);
        daemon_.harvest();
        daemon_.harvest();
    }

    void serve() {
        expect(server_.validate(0, stable_) == APIKEY_VALID, "a key that stays valid is accepted");
        const bool told = told_.load(std::memory_order_acquire) != 0;
        const apikey_code code = server_.validate(0, revoked_);
        expect(code == APIKEY_REVOKED || (!told && code == APIKEY_VALID),
               "a key is refused once it was told that it is revoked");
        expect(server_.validate(0, stable_) == APIKEY_VALID, "a key that stays valid is accepted");
    }

    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    shm::Atomic<uint32_t> told_{0};
    const ModelKey stable_{'a'};
    const ModelKey revoked_{'b'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Harvest>(argc, argv, 2);
}
