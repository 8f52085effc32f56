// The processes that validate while the daemon works: forked before anything is mapped, so that each maps the
// table for itself, as servers do.

#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <vector>

#include "apikey/apikey.h"
#include "bench/serving_run.h"

namespace apikey::bench {

/// Zeroed anonymous memory that forked processes share, as long as this object lives.
class SharedPages {
  public:
    explicit SharedPages(size_t bytes);
    ~SharedPages();
    SharedPages(const SharedPages&) = delete;
    SharedPages& operator=(const SharedPages&) = delete;
    void* data() const { return data_; }

  private:
    void* data_;
    size_t bytes_;
};

/// A T there, value-initialised. Every word that changes while another process reads it is an atomic.
template <typename T>
class Shared {
  public:
    Shared() : pages_(sizeof(T)), object_(new (pages_.data()) T()) {}
    T* operator->() const { return object_; }
    T& operator*() const { return *object_; }

  private:
    SharedPages pages_;
    T* object_;
};

/// Processes that wait for steps. Not thread-safe; the parent's side belongs to one thread.
class Crew {
  public:
    /// What one step looks like from inside a process.
    class Step {
      public:
        uint32_t process() const { return process_; }
        uint32_t number() const { return number_; }
        bool stopped() const { return crew_->shared_->stopped.load(std::memory_order_relaxed) != 0; }
        /// This thread measures from now on.
        void ready() const { crew_->shared_->ready.fetch_add(1, std::memory_order_release); }
        /// For a verdict or a count that is not right: the first one ends the run with `words`.
        void wrong(const std::string& words) const;
        /// A client of the instance that the crew works for; throws RunEnded when it cannot attach.
        apikey_client* open_client() const;

      private:
        friend class Crew;
        Crew* crew_;
        uint32_t process_;
        uint32_t number_;
    };
    using Body = std::function<void(const Step&)>;

    /// Forks; no thread may run in this process yet. `base` is where the instance kInstance will be.
    Crew(std::string base, uint32_t processes, Body body);
    /// Ends all of them, and waits.
    ~Crew();
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;

    static constexpr char kInstance[] = "serving";

    /// Has every process run body with this step; returns at once.
    void begin(uint32_t step);
    /// Threads that called ready() since.
    uint32_t ready() const { return shared_->ready.load(std::memory_order_acquire); }
    /// Tells them to stop, and waits until every body has returned.
    void end();
    /// Throws RunEnded when a process has ended, a verdict was wrong, or a signal waits that ends programs.
    void check();

  private:
    struct State {
        std::atomic<uint32_t> turn;  ///< counts begin()
        std::atomic<uint32_t> step;
        std::atomic<uint32_t> stopped;
        std::atomic<uint32_t> ready;
        std::atomic<uint32_t> idle;  ///< processes whose body has returned in this turn
        std::atomic<uint32_t> quit;
        std::atomic<uint32_t> wrong;  ///< 1: somebody writes words; 2: they stand
        char words[240];
    };
    [[noreturn]] void process_main(uint32_t process, pid_t parent);
    void run_steps(uint32_t process);

    std::string base_;
    Body body_;
    Shared<State> shared_;
    std::vector<pid_t> running_;
    uint32_t processes_;
};

}  // namespace apikey::bench
