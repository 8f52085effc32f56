// Hears that somebody changed a key store in PostgreSQL, on a thread of its own.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/result.h"

namespace apikeyd {

/// What a store's triggers NOTIFY.
inline constexpr char kPostgresChannel[] = "apikeyd_changes";

/// Keeps one connection that LISTENs, and makes another one when it is lost. It hears what is told while it
/// listens, and may be deaf without knowing (behind a pooler): who needs to know of each change asks at
/// intervals too. Started, asked and destroyed on any thread.
class PostgresListener {
  public:
    /// `place`: see place.h. `heard` is called on the listener's thread: after something changed (once for
    /// several changes), and each time it begins to listen, since of what came before nobody told it. It must
    /// be short, not throw, and not call the listener. Fails for a place that is none, and when the system
    /// has no thread or descriptor left; what is wrong with the server problem() tells.
    static Result<std::unique_ptr<PostgresListener>> start(const std::string& place,
                                                           std::function<void()> heard);

    /// Ends within 200 ms, also while connecting; `heard` is not called afterwards. A thread that libpq keeps
    /// waiting for the resolver of names is left to end by itself.
    ~PostgresListener();
    PostgresListener(const PostgresListener&) = delete;
    PostgresListener& operator=(const PostgresListener&) = delete;

    /// Empty, or why changes are not heard at the moment, or perhaps not.
    [[nodiscard]] std::string problem() const;

  private:
    class Shared;
    explicit PostgresListener(std::shared_ptr<Shared> shared);
    std::shared_ptr<Shared> shared_;  // with the thread
    std::thread thread_;
};

}  // namespace apikeyd
