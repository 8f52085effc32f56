#include "core/store_watch.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>

#include "base/errno_text.h"
#include "base/owned_fd.h"
#include "postgres/listener.h"
#include "source/sqlite_probe.h"

namespace apikeyd {

namespace {

using std::chrono::milliseconds;

/// A text counts once its writer has closed it, or renamed it into its place.
class YamlWatch final : public StoreWatch {
  public:
    explicit YamlWatch(std::unique_ptr<FileWatch> file) : file_(std::move(file)) {}

    static Result<std::unique_ptr<StoreWatch>> create(Loop& loop, const std::string& path,
                                                      const ReloadConfig& config,
                                                      std::function<void()> changed) {
        FileWatchOptions options;
        options.debounce_ms = config.debounce_ms;
        options.poll_ms = config.poll_ms;
        auto file = FileWatch::create(loop, path, options, std::move(changed));
        if (!file) {
            return tl::unexpected(std::move(file.error()));
        }
        return std::make_unique<YamlWatch>(*std::move(file));
    }

    [[nodiscard]] std::string problem() const override { return file_->inotify_problem(); }

  private:
    std::unique_ptr<FileWatch> file_;
};

/// A commit writes its pages to the log, waits for the disk, and only then is it one, by a word in shared
/// memory of which nobody is told. So after each write the store is asked, again and again for a second, at
/// growing distances; and besides every poll_ms.
class SqliteWatch final : public StoreWatch {
  public:
    SqliteWatch(Loop& loop, const std::string& path, std::function<void()> changed)
        : loop_(loop), probe_(path), changed_(std::move(changed)) {}
    ~SqliteWatch() override {
        loop_.cancel(look_timer_);
        loop_.cancel(poll_timer_);
    }

    static Result<std::unique_ptr<StoreWatch>> create(Loop& loop, const std::string& path,
                                                      const ReloadConfig& config,
                                                      std::function<void()> changed) {
        auto watch = std::make_unique<SqliteWatch>(loop, path, std::move(changed));
        FileWatchOptions options;
        options.debounce_ms = 0;
        options.poll_ms = config.poll_ms;
        options.writes = true;
        for (const auto& [file, name] : {std::pair(&watch->log_, path + "-wal"), {&watch->main_, path}}) {
            auto made = FileWatch::create(loop, name, options, [&own = *watch] { own.written(); });
            if (!made) {
                return tl::unexpected(std::move(made.error()));
            }
            *file = *std::move(made);
        }
        watch->poll_timer_ = loop.every(milliseconds(config.poll_ms), [&own = *watch] { own.look(); });
        watch->look();
        return watch;
    }

    [[nodiscard]] std::string problem() const override { return log_->inotify_problem(); }

  private:
    static constexpr int kLooks = 10;  // after 1, 2, 4, … 512 ms

    void written() {
        looks_ = 0;
        look();
        look_later();
    }
    void look_later() {
        loop_.cancel(look_timer_);
        if (looks_ < kLooks) {
            look_timer_ = loop_.after(milliseconds(1 << looks_++), [this] {
                look();
                look_later();
            });
        }
    }
    void look() {
        if (probe_.changed()) {
            changed_();
        }
    }

    Loop& loop_;
    SqliteProbe probe_;
    std::function<void()> changed_;
    std::unique_ptr<FileWatch> log_;
    std::unique_ptr<FileWatch> main_;  // for a file put in its place, and one that has no log
    TimerId look_timer_;
    TimerId poll_timer_;
    int looks_ = kLooks;
};

/// The server tells of commits; where it cannot, or a word of it was lost with a connection, it is asked each
/// poll_ms.
class PostgresWatch final : public StoreWatch {
  public:
    PostgresWatch(Loop& loop, OwnedFd wake, std::function<void()> changed)
        : loop_(loop), wake_(std::move(wake)), changed_(std::move(changed)) {}
    ~PostgresWatch() override {
        listener_.reset();  // its thread writes to the descriptor
        loop_.unwatch(watch_);
        loop_.cancel(poll_timer_);
    }

    static Result<std::unique_ptr<StoreWatch>> create(Loop& loop, const std::string& place,
                                                      const ReloadConfig& config,
                                                      std::function<void()> changed) {
        OwnedFd wake(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        if (!wake.is_open()) {
            return fail("source: eventfd: " + errno_text(errno));
        }
        auto watch = std::make_unique<PostgresWatch>(loop, std::move(wake), std::move(changed));
        const int fd = watch->wake_.get();
        const auto watched = loop.watch(fd, Interest::readable, [&own = *watch](Ready) { own.take_in(); });
        if (!watched) {
            return tl::unexpected(watched.error());
        }
        watch->watch_ = *watched;
        auto listener = PostgresListener::start(place, [fd] {
            const uint64_t one = 1;
            static_cast<void>(write(fd, &one, sizeof one));  // fails only when it is readable as it is
        });
        if (!listener) {
            return tl::unexpected(listener.error());
        }
        watch->listener_ = *std::move(listener);
        watch->poll_timer_ = loop.every(milliseconds(config.poll_ms), [&own = *watch] { own.changed_(); });
        return watch;
    }

    [[nodiscard]] std::string problem() const override { return listener_->problem(); }

  private:
    void take_in() {
        uint64_t count = 0;
        if (read(wake_.get(), &count, sizeof count) == sizeof count) {
            changed_();
        }
    }

    Loop& loop_;
    OwnedFd wake_;
    std::function<void()> changed_;
    WatchId watch_;
    TimerId poll_timer_;
    std::unique_ptr<PostgresListener> listener_;
};

}  // namespace

Result<std::unique_ptr<StoreWatch>> StoreWatch::create(Loop& loop, const StoreName& store,
                                                       const ReloadConfig& config,
                                                       std::function<void()> changed) {
    switch (store.kind) {
        case StoreKind::kYaml:
            return YamlWatch::create(loop, store.place, config, std::move(changed));
        case StoreKind::kSqlite:
            return SqliteWatch::create(loop, store.place, config, std::move(changed));
        case StoreKind::kPostgres:
            return PostgresWatch::create(loop, store.place, config, std::move(changed));
    }
    return fail("no such store");
}

}  // namespace apikeyd
