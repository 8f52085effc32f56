// From the rings of denials in shared memory to the denial log.

#pragma once

#include <array>
#include <memory>
#include <vector>

#include "core/publisher.h"
#include "runtime/log.h"
#include "shm/denials.h"

namespace apikeyd {

/// One line a denial, at most so many a second and verdict code, and at the end of a second how many more
/// there were: above that, overwritten before they were read, or cut off by a server's end. In all these are
/// as many as the totals say. What a daemon did not come to, the next one tells; one that is killed may have
/// a single line written twice.
///
/// Lives on the loop's thread. The rings are clients' to scribble on: lines may be forged, but no more of
/// them come than said above, and none names a slot that is not there.
class DenialLog {
  public:
    DenialLog(Publisher& publisher, std::unique_ptr<Log> log, uint32_t per_second_max);
    ~DenialLog();

    /// Writes what is in the rings. To be called some times a second.
    void drain();
    /// Tells what was left out, and gives clients room again. To be called once a second.
    void end_second();
    /// See Log::reopen().
    void reopen() { (void)log_->reopen(); }

    /// For a daemon without a log: clients write no more.
    static void close(const Publisher& publisher);

  private:
    struct Source;
    using ByCode = std::array<uint64_t, apikey::shm::kCodesMax>;

    void take_up();
    void write_line(Source& source, const apikey::shm::Denial& denial);
    static void note_left_out(Source& source, const ByCode& counted, ByCode& left_out);
    void tell_left_out(const ByCode& left_out);

    Publisher& publisher_;
    std::unique_ptr<Log> log_;
    uint32_t per_second_max_;
    bool adopting_ = true;  // generations that were there before this daemon
    ByCode lines_{};        // in this second
    ByCode left_out_{};     // of generations that are gone
    std::vector<std::unique_ptr<Source>> sources_;
};

}  // namespace apikeyd
