// Whether anything was committed to a key store since one looked last.

#pragma once

#include <memory>
#include <string>

namespace apikeyd {

/// One thread at a time. Some microseconds a look, and no lock that a writer waits for.
class SqliteProbe {
  public:
    explicit SqliteProbe(std::string path);
    SqliteProbe(SqliteProbe&&) noexcept;
    SqliteProbe& operator=(SqliteProbe&&) noexcept;
    ~SqliteProbe();

    /// True also when the store has come, has gone, or is another file than before. Not for what is there at
    /// the first look.
    bool changed();

  private:
    struct Open;
    bool open();

    std::string path_;
    std::unique_ptr<Open> open_;  ///< nullptr: there is none that can be opened
    bool looked_ = false;
};

}  // namespace apikeyd
