// A line between a run and one of its writers: short messages, each answered before the next. What goes over
// it is no point of the writer.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace apikey::crash {

struct Message {
    enum class What : uint8_t {
        // From a writer
        kEdit,       ///< the operator makes `edit` in the source
        kAnswered,   ///< the daemon has answered `edit`
        kLoaded,     ///< what the source says is in force
        kAttach,     ///< clients attach
        kRound,      ///< clients validate
        kLetGo,      ///< clients let go of every superseded generation
        kHarvested,  ///< nothing superseded is left
        kBreakSource,
        kMendSource,
        kOtherBoot,  ///< `control` is of another boot from now on
        kRefused,    ///< an operation was answered by `text`, after a call on a file failed
        kFailed,     ///< a promise is broken: `text`
        // To a writer that comes after another
        kGo,    ///< start on what is left; `text` are the edits that were made, a character each
        kDone,  ///< answers any of the above
    };
    What what;
    uint8_t edit = 0;
    char text[512] = {};
};

/// A socket pair of which each process keeps one end.
class Link {
  public:
    Link();
    ~Link();
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    /// After the fork.
    void keep_mine();
    void keep_theirs();

    /// False when the other process is gone.
    bool send(Message::What what, uint8_t edit = 0, const std::string& text = {}) const;
    bool receive(Message* message) const;
    /// Sends, and waits for kDone; ends the process when the other one is gone.
    void ask(Message::What what, uint8_t edit = 0, const std::string& text = {}) const;

  private:
    void shut(int* end);
    int ends_[2];
};

}  // namespace apikey::crash
