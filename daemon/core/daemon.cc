#include "core/daemon.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdlib>

#include "base/clock.h"
#include "base/hex.h"
#include "core/admin.h"
#include "core/bus_guard.h"
#include "core/preflight.h"
#include "core/store_watch.h"
#include "core/usage_sender.h"
#include "runtime/file_watch.h"
#include "runtime/signals.h"

namespace apikeyd {

using apikey::shm::ControlState;
using apikey::shm::Directory;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kRetireInterval{1000};
constexpr milliseconds kDenialsInterval{250};  // a ring holds what the default gives all codes room for
constexpr milliseconds kSecond{1000};
constexpr milliseconds kSnapshotInterval{60000};  // of a quiet source nobody tells that it is still the same
constexpr milliseconds kNamesInterval{10000};     // for the lock's name; control's is watched
constexpr int64_t kNamesPoll_ms = 1000;
/// As long as the tool waits: a large key set is parsed for minutes.
constexpr milliseconds kAnswerMax{1'800'000};

/// Everything that lives while the daemon runs, in the order in which it comes and, backwards, goes.
class Daemon {
  public:
    static Result<std::unique_ptr<Daemon>> start(const Config& config);
    Result<void> run();

  private:
    Daemon(Config config, std::unique_ptr<Log> log, std::unique_ptr<Loop> loop)
        : config_(std::move(config)),
          log_(std::move(log)),
          audit_(config_.audit_log, *log_),
          loop_(std::move(loop)) {}

    Result<void> open_workers();
    Result<void> open_instance();
    Result<void> open_sender(ServingHost host);
    Result<void> restore_quotas();
    Result<void> open_notices();
    void first_load();
    Result<void> open_door();
    void start_timers();
    void beat();
    void check_names();
    void on_signal(Signal signal);
    DaemonStatus fixed_status() const;

    Config config_;
    std::unique_ptr<Log> log_;
    AuditLog audit_;
    std::unique_ptr<Loop> loop_;
    std::unique_ptr<Worker> loader_;
    std::unique_ptr<Worker> builder_;
    std::unique_ptr<Worker> flush_worker_;
    std::unique_ptr<Worker> snapshot_worker_;
    std::unique_ptr<Worker> send_worker_;  // nullptr where there is no fleet, as sender_
    std::shared_ptr<Snapshot> snapshot_;   // nullptr where none is kept
    std::unique_ptr<Publisher> publisher_;
    std::unique_ptr<Reloader> reloader_;
    std::unique_ptr<Flusher> flusher_;
    std::unique_ptr<UsageSender> sender_;
    std::unique_ptr<DenialLog> denials_;
    std::unique_ptr<Admin> admin_;
    std::unique_ptr<SignalWatch> signals_;
    std::unique_ptr<StoreWatch> watch_;
    std::unique_ptr<FileWatch> names_watch_;
    std::unique_ptr<UnixServer> door_;
    gid_t operators_group_ = 0;
    Result<void> outcome_;
    bool names_lost_ = false;
};

Result<std::unique_ptr<Daemon>> Daemon::start(const Config& config) {
    const char* journal = getenv("JOURNAL_STREAM");
    auto log = Log::open({.format = config.log.format,
                          .level_min = config.log.level,
                          .path = config.log.file,
                          .journal_stream = journal != nullptr ? journal : ""});
    if (!log) {
        return tl::unexpected(log.error());
    }
    auto loop = make_loop(config.event_loop);
    if (!loop) {
        return tl::unexpected(loop.error());
    }
    std::unique_ptr<Daemon> daemon(new Daemon(config, std::move(*log), std::move(*loop)));
    for (auto step :
         {&Daemon::open_workers, &Daemon::open_instance, &Daemon::restore_quotas, &Daemon::open_notices}) {
        if (Result<void> opened = ((*daemon).*step)(); !opened) {
            return tl::unexpected(opened.error());
        }
    }
    daemon->start_timers();
    daemon->publisher_->replace_spoilt();  // nobody can attach to it, whatever becomes of the first load
    daemon->first_load();
    return daemon;
}

/// One thread each for what must not wait for the others: parsing, building, writing usage, writing the
/// snapshot while the source is read.
Result<void> Daemon::open_workers() {
    for (std::unique_ptr<Worker>* worker : {&loader_, &builder_, &flush_worker_, &snapshot_worker_}) {
        auto started = Worker::start(*loop_);
        if (!started) {
            return tl::unexpected(started.error());
        }
        *worker = std::move(*started);
    }
    return {};
}

Retention retention_of(const RetentionConfig& config) {
    constexpr int64_t kHour_s = 3600;
    constexpr int64_t kDay_s = 24 * kHour_s;
    return {{config.minutes_h * kHour_s, config.hours_d * kDay_s, config.days_d * kDay_s}};
}

/// By what a fleet knows this daemon.
ServingHost serving_host(const Config& config, const apikey::shm::Control& control) {
    char name[HOST_NAME_MAX + 1] = "";
    if (config.host.empty() && gethostname(name, sizeof name - 1) != 0) {
        name[0] = '\0';
    }
    ServingHost host{.name = config.host.empty() ? name : config.host,
                     .version = APIKEYD_VERSION,
                     .place_id = to_hex(control.instance)};
    if (config.instance != apikey::shm::kInstanceDefault) {
        host.name += "/" + config.instance;
    }
    host.silent_ms_max = std::max(host.silent_ms_max, 3 * config.reload.poll_ms + 5'000);
    return host;
}

/// Of the snapshot that the earlier daemon's table was made of, Unix seconds; 0 where it was not. Only then
/// are the two times one (Reloader::serve_snapshot()).
int64_t taken_of_table(Publisher& publisher) {
    constexpr uint64_t kSecond_ns = 1'000'000'000;
    const apikey::shm::Control& control = publisher.control().control();
    const uint64_t heartbeat_ns = control.heartbeat_ns.load(std::memory_order_relaxed);
    const bool is_snapshot = publisher.current() != nullptr && heartbeat_ns % kSecond_ns == 0 &&
                             heartbeat_ns == control.source_loaded_ns.load(std::memory_order_relaxed);
    return is_snapshot ? static_cast<int64_t>(heartbeat_ns / kSecond_ns) : 0;
}

Result<void> Daemon::open_instance() {
    const Result<Groups> groups = find_groups(config_);
    if (!groups) {
        return tl::unexpected(groups.error());
    }
    operators_group_ = groups->operators;
    auto directory = Directory::open_and_lock(config_.directory, config_.instance, groups->clients);
    if (!directory) {
        return tl::unexpected(directory.error());
    }
    const bool in_fleet = config_.source.kind == StoreKind::kPostgres;
    auto store = UsageStore::open(config_.usage_path, retention_of(config_.retention), in_fleet);
    if (!store) {
        return tl::unexpected(store.error());
    }
    auto publisher =
        Publisher::open(std::move(*directory), groups->clients, config_.capacity_keys, *builder_, *log_);
    if (!publisher) {
        return tl::unexpected(publisher.error());
    }
    publisher_ = std::move(*publisher);
    publisher_->control().set_started(static_cast<uint64_t>(getpid()), realtime_now_ns());
    const int64_t table_taken_s = taken_of_table(*publisher_);
    if (table_taken_s == 0) {
        publisher_->control().beat(realtime_now_ns());
    }
    const ServingHost host = serving_host(config_, publisher_->control().control());
    std::shared_ptr<Source> source = make_source(config_.source, host);
    if (!config_.snapshot.file.empty()) {
        constexpr int64_t kHour_s = 3600;
        snapshot_ = std::make_shared<Snapshot>(SnapshotOptions{config_.snapshot.file, config_.source.text(),
                                                               config_.snapshot.max_age_h * kHour_s});
        source = std::make_shared<SnapshottedSource>(std::move(source), snapshot_);
    }
    reloader_ =
        std::make_unique<Reloader>(*loop_, *publisher_, *loader_,
                                   ReloaderOptions{std::move(source), config_.reload.max_loss_percent,
                                                   &audit_, snapshot_, snapshot_worker_.get(), table_taken_s},
                                   *log_);
    denials_ = std::make_unique<DenialLog>(*publisher_, config_.denial_log, *log_);
    flusher_ = std::make_unique<Flusher>(*publisher_, *flush_worker_, std::move(*store), *log_);
    flusher_->before_retiring([this](const GenerationPtr& generation) { denials_->finish(generation); });
    admin_ = std::make_unique<Admin>(*publisher_, *reloader_, *flusher_, operators_group_, fixed_status(),
                                     audit_, *denials_, *log_);
    return in_fleet ? open_sender(host) : Result<void>();
}

Result<void> Daemon::open_sender(ServingHost host) {
    auto worker = Worker::start(*loop_);
    if (!worker) {
        return tl::unexpected(worker.error());
    }
    send_worker_ = std::move(*worker);
    sender_ = std::make_unique<UsageSender>(flusher_->store(), *flush_worker_, *send_worker_,
                                            config_.source.place, std::move(host), *log_);
    admin_->set_usage_sender(sender_.get());
    return {};
}

/// After a reboot, an upgrade of the layout, or where a client spoilt the cells: no table's meters go on.
Result<void> Daemon::restore_quotas() {
    if (publisher_->current() != nullptr && publisher_->current()->cells().base != nullptr) {
        return {};
    }
    auto quotas = flusher_->stored_quotas();
    if (!quotas) {
        return tl::unexpected(quotas.error());
    }
    publisher_->restore_quotas(std::move(*quotas));
    return {};
}

Result<void> Daemon::open_notices() {
    auto signals = SignalWatch::create(*loop_, [this](Signal signal) { on_signal(signal); });
    if (!signals) {
        return tl::unexpected(signals.error());
    }
    signals_ = std::move(*signals);
    auto watch = StoreWatch::create(*loop_, config_.source, config_.reload, [this] {
        admin_->set_watch_problem(watch_->problem());
        reloader_->request(false, [](const Result<ReloadReport>&) {});
    });
    if (!watch) {
        return tl::unexpected(watch.error());
    }
    watch_ = std::move(*watch);
    if (!watch_->problem().empty()) {
        admin_->set_watch_problem(watch_->problem());
        log_->warn("source.polled_only", {{"reason", watch_->problem()}});
    }
    auto names = FileWatch::create(*loop_, publisher_->directory().path() + "/control",
                                   {.debounce_ms = 0, .poll_ms = kNamesPoll_ms}, [this] { check_names(); });
    if (!names) {
        return tl::unexpected(names.error());
    }
    names_watch_ = std::move(*names);
    return {};
}

/// Commands come after the first load, which makes every file say no more than the source does. Where it was
/// refused they come all the same: an operator has to look, and to reload.
void Daemon::first_load() {
    reloader_->request(false, [this](const Result<ReloadReport>&) {
        outcome_ = open_door();
        if (!outcome_) {
            loop_->stop();
            return;
        }
        publisher_->control().set_state(ControlState::kServing);
        if (publisher_->current() == nullptr) {
            log_->warn("daemon.no_table", {{"reason", "servers answer UNAVAILABLE until a load succeeds"}});
        }
        log_->info("daemon.ready", {{"instance", config_.instance},
                                    {"directory", publisher_->directory().path()},
                                    {"loop", loop_->name()}});
    });
}

Result<void> Daemon::open_door() {
    UnixServerOptions options;
    options.gid = operators_group_;
    options.answer_ms = kAnswerMax.count();
    options.fault_line = [](ServerFault fault) { return format_failure(describe_fault(fault)); };
    options.on_accept_error = [this](const Error& error) {
        log_->warn("admin.paused", {{"reason", error.message}});
    };
    auto door =
        UnixServer::listen(*loop_, publisher_->directory().path() + "/admin.sock", options,
                           [this](const Peer& peer, const std::string& line, const Responder& responder) {
                               admin_->handle(peer, line, responder);
                           });
    if (!door) {
        return tl::unexpected(door.error());
    }
    door_ = std::move(*door);
    return {};
}

void Daemon::start_timers() {
    loop_->every(milliseconds(config_.heartbeat_interval_ms), [this] { beat(); });
    if (snapshot_ != nullptr) {
        loop_->every(kSnapshotInterval,
                     [this] { reloader_->request(false, [](const Result<ReloadReport>&) {}); });
    }
    loop_->every(milliseconds(config_.flush_interval_ms), [this] {
        flusher_->flush([this](const Result<FlushSummary>& flushed) {
            if (flushed && sender_ != nullptr) {
                sender_->send();
            }
        });
    });
    loop_->every(kRetireInterval, [this] {
        publisher_->replace_spoilt();
        flusher_->retire_unused();
    });
    if (denials_->on()) {
        loop_->every(kDenialsInterval, [this] { denials_->drain(); });
        loop_->every(kSecond, [this] { denials_->end_second(); });
    }
    loop_->every(kNamesInterval, [this] { check_names(); });
}

/// A table made of a snapshot is as old as that: to clients it is as if the daemon had been silent since.
void Daemon::beat() {
    if (!reloader_->snapshot_use()) {
        publisher_->control().beat(realtime_now_ns());
    }
}

/// Ends the daemon when its files lost their names, and sends their clients to look for others: a daemon that
/// is started in a new directory of the same name cannot tell them of a revocation.
void Daemon::check_names() {
    if (names_lost_ || publisher_->directory().still_named(publisher_->control().fd())) {
        return;
    }
    names_lost_ = true;
    publisher_->control().set_state(ControlState::kSuperseded);
    outcome_ = fail(publisher_->directory().path() +
                    ": the files were removed or replaced under the daemon; start it again to make new ones");
    loop_->stop();
}

void Daemon::on_signal(Signal signal) {
    switch (signal) {
        case Signal::reload:
            reloader_->request(false, [](const Result<ReloadReport>&) {});
            return;
        case Signal::reopen_logs:
            (void)log_->reopen();  // says itself when it fails, and goes on with the old file
            audit_.reopen();
            denials_->reopen();
            return;
        case Signal::terminate:
            loop_->stop();
            return;
    }
}

DaemonStatus Daemon::fixed_status() const {
    DaemonStatus status;
    status.pid = static_cast<uint64_t>(getpid());
    status.version = APIKEYD_VERSION;
    status.started_s = realtime_now_ns() / 1000000000;
    status.instance = config_.instance;
    status.directory = publisher_->directory().path();
    status.source = config_.source.text();
    status.usage = "sqlite:" + config_.usage_path;
    status.snapshot = config_.snapshot.file;
    status.event_loop = loop_->name();
    return status;
}

Result<void> Daemon::run() {
    if (Result<void> ran = loop_->run(); !ran) {
        outcome_ = ran;
    }
    door_.reset();
    reloader_->stop();
    if (sender_ != nullptr) {
        sender_->stop();
    }
    for (Worker* worker :
         {loader_.get(), builder_.get(), flush_worker_.get(), snapshot_worker_.get(), send_worker_.get()}) {
        if (worker != nullptr) {
            worker->stop();
        }
    }
    reloader_->close_snapshot();
    if (const Result<FlushSummary> flushed = flusher_->flush_now(); !flushed) {
        log_->error("usage.flush_failed", {{"reason", flushed.error().message}});
    }
    denials_->drain();
    denials_->end_second();
    if (!names_lost_) {
        publisher_->control().set_state(ControlState::kStopped);
    }
    if (outcome_) {
        log_->info("daemon.stopped");
    } else {
        log_->error("daemon.failed", {{"reason", outcome_.error().message}});
    }
    return outcome_;
}

}  // namespace

Result<void> run_daemon(const Config& config) {
    install_bus_guard();
    Result<std::unique_ptr<Daemon>> daemon = Daemon::start(config);
    return daemon ? (*daemon)->run() : tl::unexpected(daemon.error());
}

}  // namespace apikeyd
