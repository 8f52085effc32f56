#include "tests/crash/writer.h"

#include <unistd.h>

#include <stdexcept>

#include "base/clock.h"
#include "source/yaml_file.h"

namespace apikey::crash {
namespace {

using apikeyd::Fingerprint;
using apikeyd::FlushSummary;
using apikeyd::ReloadReport;
using apikeyd::Result;
using apikeyd::Worker;

/// Removals are part of the scenario; the guard against too many of them is not.
constexpr uint32_t kAnyLoss = 100;
/// Less than a round has of some codes.
constexpr uint32_t kDenialsPerSecond = 3;
/// The group that the files have anyway: they are given to it all the same.
gid_t clients_group() {
    return getegid();
}

template <typename T>
T value_of(Result<T> result) {
    if (!result) {
        throw std::runtime_error(result.error().message);
    }
    return std::move(*result);
}

}  // namespace

Writer::Writer(const Site& site)
    : site_(site),
      log_(value_of(apikeyd::Log::open({.path = site.log()}))),
      loop_(value_of(apikeyd::make_loop(apikeyd::LoopKind::epoll))),
      builder_(value_of(Worker::start(*loop_))),
      flush_worker_(value_of(Worker::start(*loop_))) {}

Writer::~Writer() {
    for (Worker* worker : {builder_.get(), flush_worker_.get()}) {
        worker->stop();
    }
}

void Writer::run_until(const std::function<bool()>& done) {
    while (!done()) {
        if (Result<void> ran = loop_->run(); !ran) {
            throw std::runtime_error(ran.error().message);
        }
    }
}

void Writer::run_until_told(const bool& told) {
    run_until([&] { return told; });
}

Result<void> Writer::open() {
    denials_.reset();
    flusher_.reset();
    reloader_.reset();
    publisher_.reset();
    auto directory = shm::Directory::open_and_lock(site_.base(), "default", clients_group());
    if (!directory) {
        return tl::unexpected(directory.error());
    }
    auto store = apikeyd::UsageStore::open(site_.store());
    if (!store) {
        return tl::unexpected(store.error());
    }
    auto publisher = apikeyd::Publisher::open(std::move(*directory), clients_group(), /*capacity_keys=*/0,
                                              *builder_, *log_);
    if (!publisher) {
        return tl::unexpected(publisher.error());
    }
    publisher_ = std::move(*publisher);
    publisher_->control().set_started(static_cast<uint64_t>(getpid()), apikeyd::realtime_now_ns());
    beat();
    reloader_ = std::make_unique<apikeyd::Reloader>(
        *loop_, *publisher_, *builder_,
        apikeyd::ReloaderOptions{std::make_shared<apikeyd::YamlFile>(site_.source()), kAnyLoss}, *log_);
    apikeyd::DenialLogConfig config;
    config.file = site_.denials();
    config.per_second = kDenialsPerSecond;
    denials_ = std::make_unique<apikeyd::DenialLog>(*publisher_, config, *log_);
    flusher_ = std::make_unique<apikeyd::Flusher>(*publisher_, *flush_worker_, std::move(*store), *log_);
    flusher_->before_retiring(
        [this](const apikeyd::GenerationPtr& generation) { denials_->finish(generation); });
    if (publisher_->current() == nullptr) {
        auto quotas = flusher_->stored_quotas();
        if (!quotas) {
            return tl::unexpected(quotas.error());
        }
        publisher_->restore_quotas(std::move(*quotas));
    }
    return {};
}

Result<void> Writer::load() {
    Result<void> outcome;
    bool told = false;
    reloader_->request(false, [&](const Result<ReloadReport>& result) {
        outcome = result ? Result<void>() : tl::unexpected(result.error());
        told = true;
        loop_->stop();
    });
    run_until_told(told);
    return outcome;
}

std::shared_ptr<Writer::Told> Writer::send(const Sent& sent) {
    auto answer = std::make_shared<Told>();
    reloader_->apply(sent.changes, apikeyd::fingerprint(sent.before), apikeyd::fingerprint(sent.after),
                     [this, answer](Result<void> result) {
                         answer->outcome = std::move(result);
                         answer->told = true;
                         loop_->stop();
                     });
    return answer;
}

Result<void> Writer::await(const std::shared_ptr<Told>& answer) {
    run_until_told(answer->told);
    return answer->outcome;
}

std::shared_ptr<std::binary_semaphore> Writer::hold_builder() {
    auto held = std::make_shared<std::binary_semaphore>(0);
    if (!builder_->submit([held] { held->acquire(); }, [] {})) {
        throw std::runtime_error("the builder is busy");
    }
    return held;
}

Result<void> Writer::apply_with_build(const Sent& sent, const std::function<void()>& meanwhile) {
    const auto before = hold_builder();
    const std::shared_ptr<Told> answer = send(sent);
    const auto after = hold_builder();
    meanwhile();
    before->release();
    const auto announced = [&] { return answer->told || publisher_->next() != nullptr; };
    const apikeyd::TimerId look = loop_->every(std::chrono::milliseconds(1), [&] {
        if (announced()) {
            loop_->stop();
        }
    });
    run_until(announced);
    loop_->cancel(look);
    // What the worker has to do now, the load of what came meanwhile and the move of the meters, it does
    // while the loop stands still: so the points come in the same order each time.
    auto idle = std::make_shared<std::binary_semaphore>(0);
    auto held = std::make_shared<std::binary_semaphore>(0);
    if (!builder_->submit(
            [idle, held] {
                idle->release();
                held->acquire();
            },
            [] {})) {
        throw std::runtime_error("the builder is busy");
    }
    after->release();
    idle->acquire();
    Result<void> outcome = await(answer);
    held->release();
    return outcome;
}

Result<void> Writer::flush() {
    Result<void> outcome;
    bool told = false;
    flusher_->flush([&](const Result<FlushSummary>& result) {
        outcome = result ? Result<void>() : tl::unexpected(result.error());
        told = true;
        loop_->stop();
    });
    run_until_told(told);
    return outcome;
}

void Writer::tell_denials() {
    denials_->drain();
    denials_->drain();
    denials_->end_second();
}

bool Writer::harvest() {
    flusher_->retire_unused();
    bool told = false;
    // The worker does its jobs in order.
    if (!flush_worker_->submit([] {},
                               [&] {
                                   told = true;
                                   loop_->stop();
                               })) {
        throw std::runtime_error("the flush worker is busy");
    }
    run_until_told(told);
    return publisher_->superseded().empty();
}

void Writer::serve() {
    publisher_->control().set_state(shm::ControlState::kServing);
}

void Writer::beat() {
    publisher_->control().beat(apikeyd::realtime_now_ns());
}

Result<void> Writer::stop() {
    reloader_->stop();
    for (Worker* worker : {builder_.get(), flush_worker_.get()}) {
        worker->stop();
    }
    const Result<FlushSummary> flushed = flusher_->flush_now();
    tell_denials();
    publisher_->control().set_state(shm::ControlState::kStopped);
    denials_.reset();
    flusher_.reset();
    reloader_.reset();
    publisher_.reset();
    return flushed ? Result<void>() : tl::unexpected(flushed.error());
}

}  // namespace apikey::crash
