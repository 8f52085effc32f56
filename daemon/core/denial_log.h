// From the rings of denials in shared memory to the denial log.

#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "core/publisher.h"
#include "core/side_log.h"
#include "shm/denials.h"

namespace apikeyd {

/// One line a denial, at most so many a second and verdict code, and at the end of a second how many more
/// there were: above that, overwritten before they were read, or cut off by a server's end. In all these are
/// as many as the totals say. What a daemon did not come to, the next one tells; the last line of one that is
/// killed may be told again.
///
/// Lives on the loop's thread. The rings are clients' to scribble on: lines may be forged, but no more of
/// them come than said above, and none names a slot that is not there.
class DenialLog {
  public:
    /// Goes on where the daemon before ended. Without a file in `config` clients are told to write nothing.
    /// `publisher` and `log`, the main one, outlive this.
    DenialLog(Publisher& publisher, const DenialLogConfig& config, Log& log);
    ~DenialLog();

    bool on() const { return log_.on(); }

    /// Writes what is in the rings. To be called some times a second.
    void drain();
    /// Tells what was left out, and gives clients room again. To be called once a second.
    void end_second();
    /// The last look at a generation that nobody maps any more, while its files are there.
    void finish(const GenerationPtr& generation);

    void reopen() { log_.reopen(); }
    std::string problem() const { return log_.problem(); }

  private:
    struct Source;
    using ByCode = std::array<uint64_t, apikey::shm::kCodesMax>;

    void take_up();
    void drain(Source& source);
    void write_line(Source& source, const apikey::shm::Denial& denial);
    void tell_left_out();

    Publisher& publisher_;
    SideLog log_;
    uint32_t per_second_;
    ByCode lines_{};  // in this second
    std::vector<std::unique_ptr<Source>> sources_;
};

}  // namespace apikeyd
