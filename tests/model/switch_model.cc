// The daemon adds a key by a new generation, and enables and revokes others, while two threads of a server
// validate and go over to it.
//
// Promises: a key that stays valid is never refused; one that was added or enabled is accepted by every call
// that begins after that was told, and one that was revoked by none; a key that nobody added is never
// accepted; nothing is read of a mapping before it was seen to begin, or after it ended; every answer is
// counted; what was replaced is not forgotten.

#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

class Switch : public Scenario {
  public:
    void before() override {
        daemon_.switch_to(1, {stable_.row, revoked_.row, enabled_.as(KeyState::kDisabled)});
        server_.open(Server::kThreads);
    }

    void thread(unsigned number) override { number == 0 ? change() : serve(number - 1); }

    void after() override {
        daemon_.count_the_rest();
        expect(daemon_.counted_answers() == server_.answers(), "every answer is counted");
        expect(daemon_.counted_valid() == server_.valid(), "every VALID is counted for its key");
        server_.close();
    }

  private:
    void change() {
        daemon_.switch_to(2, {stable_.row, revoked_.row, enabled_.as(KeyState::kDisabled), added_.row});
        daemon_.change(enabled_.row);
        told_good_.store(1, std::memory_order_release);
        daemon_.change(revoked_.as(KeyState::kRevoked));
        told_revoked_.store(1, std::memory_order_release);
    }

    void serve(unsigned thread) {
        const bool good = told_good_.load(std::memory_order_acquire) != 0;
        const apikey_code added = server_.validate(thread, added_);
        expect(added == APIKEY_VALID || (!good && added == APIKEY_MALFORMED),
               "a key is accepted once it was told that it is there");
        const apikey_code enabled = server_.validate(thread, enabled_);
        expect(enabled == APIKEY_VALID || (!good && enabled == APIKEY_DISABLED),
               "a key is accepted once it was told that it is enabled");
        const bool revoked = told_revoked_.load(std::memory_order_acquire) != 0;
        const apikey_code withdrawn = server_.validate(thread, revoked_);
        expect(withdrawn == APIKEY_REVOKED || (!revoked && withdrawn == APIKEY_VALID),
               "a key is refused once it was told that it is revoked");
        expect(server_.validate(thread, stable_) == APIKEY_VALID, "a key that stays valid is accepted");
    }

    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    shm::Atomic<uint32_t> told_good_{0};
    shm::Atomic<uint32_t> told_revoked_{0};
    const ModelKey stable_{'a'};
    const ModelKey revoked_{'b'};
    const ModelKey enabled_{'c'};
    const ModelKey added_{'d'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Switch>(argc, argv, 3);
}
