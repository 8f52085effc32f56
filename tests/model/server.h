// A server in a model: what its threads present, and what the answers have to be.

#pragma once

#include "client/validate.h"
#include "tests/model/generation_memory.h"

namespace apikey::model {

/// One process's client, for the length of a run. Threads that are numbered from 0 count what they were
/// answered.
class Server {
  public:
    static constexpr unsigned kThreads = 2;  ///< besides the daemon's, which may validate as well

    /// Before the threads, when the instance has a generation. `records`: as many as threads may claim; 0:
    /// all are taken, and threads are counted in and out.
    void open(size_t records) {
        static client::Record* const spare = [] {
            expect(client::records_prepare(), "there are records");
            return client::claim_record() + 1;  // the first is the preparing thread's
        }();
        constexpr size_t kSpare = client::kRecords - 1;
        for (size_t i = 0; i < kSpare; ++i) {
            spare[i].owner.store(i < records ? 0 : kSomebody);
        }
        leave_out(spare + records, (kSpare - records) * sizeof(client::Record));
        expect(apikey_open(nullptr, &client_) == APIKEY_OK, "a client attaches");
        keep_per_thread(reinterpret_cast<void**>(&client::t_record));
    }
    /// After the threads: whatever was replaced is unmapped, or will be looked at again.
    void close() {
        for (client::Mapping* node = client_->nodes.load(); node != nullptr; node = node->next) {
            expect(node->state.load() != client::NodeState::kRetired || client_->reclaim_at_ns.load() != 0,
                   "what was replaced is looked at again");
        }
        apikey_close(client_);
    }

    apikey_code validate(unsigned thread, const ModelKey& key, apikey_verdict* verdict = nullptr,
                         const client::Asked& asked = {}) {
        apikey_verdict unused;
        verdict = verdict != nullptr ? verdict : &unused;
        const apikey_code code = client::validate(client_, key.text.data(), key.text.size(), asked, verdict);
        ++tallies_[thread].answers;
        tallies_[thread].valid += code == APIKEY_VALID ? 1 : 0;
        return code;
    }
    /// The same for several keys in one call.
    template <size_t kCount>
    void validate_many(unsigned thread, const ModelKey* const (&keys)[kCount],
                       apikey_verdict (&verdicts)[kCount]) {
        apikey_key presented[kCount];
        for (size_t i = 0; i < kCount; ++i) {
            presented[i] = {keys[i]->text.data(), keys[i]->text.size()};
        }
        tallies_[thread].valid += client::validate_many(client_, presented, kCount, verdicts);
        tallies_[thread].answers += kCount;
    }
    /// The thread ends: what pthreads would do.
    static void end_thread() { end_of_thread(client::t_record); }
    apikey_client* client() { return client_; }
    uint64_t answers() const { return tallies_[0].answers + tallies_[1].answers + tallies_[2].answers; }
    uint64_t valid() const { return tallies_[0].valid + tallies_[1].valid + tallies_[2].valid; }

  private:
    struct Tally {
        uint64_t answers = 0;
        uint64_t valid = 0;
    };
    static constexpr uintptr_t kSomebody = 1;

    apikey_client* client_ = nullptr;
    Tally tallies_[kThreads + 1];
};

}  // namespace apikey::model
