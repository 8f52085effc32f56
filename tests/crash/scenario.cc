#include "tests/crash/scenario.h"

#include <cstdio>
#include <stdexcept>
#include <vector>

#include "tests/crash/key_set.h"
#include "tests/crash/left_behind.h"

namespace apikey::crash {
namespace {

using apikeyd::Result;
using What = Message::What;

constexpr const char* kSteps[] = {
    "open",       "first load",    "serve",         "changes",       "foreign keys", "flush", "fill",
    "superseded", "flush two",     "harvest",       "broken source", "fill again",   "stop",  "open again",
    "load again", "harvest again", "other control", "stop for good", "come after"};
enum Step : uint8_t {
    kOpen,
    kFirstLoad,
    kServe,
    kChanges,
    kForeignKeys,
    kFlush,
    kFill,
    kSuperseded,
    kFlushTwo,
    kHarvest,
    kBrokenSource,
    kFillAgain,
    kStop,
    kOpenAgain,
    kLoadAgain,
    kHarvestAgain,
    kOtherControl,
    kStopForGood,
    kComeAfter,
};

/// An operation is tried so often: once more than it can be made to fail.
constexpr int kTries = 2;
/// What is only logged is tried again by a timer.
constexpr int kHarvests = 3;

class Walk {
  public:
    Walk(const Site& site, const Link& link, std::function<void()> arm)
        : link_(link), site_(site), arm_(std::move(arm)) {}

    void all() {
        begin();
        changes();
        foreign_keys();
        fill();
        superseded();
        broken_source();
        fill_again();
        restart();
        other_control();
        set_step(kStopForGood);
        stop();
    }

    void after() {
        Message told;
        if (!link_.receive(&told)) {
            throw std::runtime_error("nobody asks");
        }
        for (const char* edit = told.text; *edit != '\0'; ++edit) {
            keys_.make(static_cast<Edit>(*edit - kFirstEdit));
        }
        const LeftBehind left(site_.instance());
        if (!left.problem().empty()) {
            fail_promise(left.problem());
        }
        writer_ = std::make_unique<Writer>(site_);
        arm_();
        set_step(kComeAfter);
        must("open", [&] { return writer_->open(); });
        const shm::Generation* current = writer_->publisher().current().get();
        if (left.announced() != 0 && (current == nullptr || current->number() != left.announced())) {
            fail_promise("generation " + std::to_string(left.announced()) + " was not adopted");
        }
        must("load", [&] { return writer_->load(); });
        link_.ask(What::kLoaded);
        writer_->serve();
        must("flush", [&] { return writer_->flush(); });
        link_.ask(What::kRound);
        apply(Edit::kLast);
        link_.ask(What::kRound);
        link_.ask(What::kLetGo);
        harvest();
        link_.ask(What::kHarvested);
        stop();
    }

  private:
    void fail_promise(const std::string& text) const { link_.ask(What::kFailed, 0, text); }

    /// What was made to fail says so and names the file, and can be done again.
    void must(const char* what, const std::function<Result<void>()>& operation) {
        std::string problem;
        for (int i = 0; i < kTries; ++i) {
            const Result<void> result = operation();
            if (result) {
                return;
            }
            problem = std::string(what) + ": " + result.error().message;
            tell_refused(problem);
        }
        throw std::runtime_error(problem);
    }

    /// Ends the run unless something was made to fail, which an operation may answer once.
    void tell_refused(const std::string& problem) {
        if (!order_met() || refused_) {
            throw std::runtime_error(problem);
        }
        refused_ = true;
        link_.ask(What::kRefused, 0, problem);
    }

    /// What the last flush does not bring waits for the next writer.
    void stop() {
        if (const Result<void> result = writer_->stop(); !result) {
            tell_refused("stop: " + result.error().message);
        }
    }

    /// The operator changes the source, and the tool sends what was changed.
    void apply(Edit edit) {
        const Sent sent = edited(edit);
        must("apply", [&] { return writer_->apply(sent); });
        answered(edit);
    }

    void reload(Edit edit) {
        edited(edit);
        must("reload", [&] { return writer_->load(); });
        answered(edit);
    }

    Sent edited(Edit edit) {
        link_.ask(What::kEdit, static_cast<uint8_t>(edit));
        Sent sent;
        sent.before = keys_.text();
        sent.changes = keys_.changes(keys_.make(edit));
        sent.after = keys_.text();
        return sent;
    }

    void answered(Edit edit) const { link_.ask(What::kAnswered, static_cast<uint8_t>(edit)); }

    void harvest() {
        for (int i = 0; i < kHarvests; ++i) {
            if (writer_->harvest()) {
                return;
            }
        }
        throw std::runtime_error("a generation that nobody maps is not harvested");
    }

    void begin() {
        writer_ = std::make_unique<Writer>(site_);
        arm_();
        set_step(kOpen);
        must("open", [&] { return writer_->open(); });
        set_step(kFirstLoad);
        reload(Edit::kFirst);
        set_step(kServe);
        writer_->serve();
        writer_->beat();
        link_.ask(What::kAttach);
        link_.ask(What::kRound);
    }

    void changes() {
        set_step(kChanges);
        apply(Edit::kAdd);
        apply(Edit::kUpdate);
        apply(Edit::kDisable);
        link_.ask(What::kRound);
        apply(Edit::kEnable);
        apply(Edit::kRevoke);
        reload(Edit::kRemove);
        link_.ask(What::kRound);
    }

    void foreign_keys() {
        set_step(kForeignKeys);
        apply(Edit::kAddForeign);
        apply(Edit::kRemoveForeign);
        reload(Edit::kReturnForeign);
        link_.ask(What::kRound);
        set_step(kFlush);
        must("flush", [&] { return writer_->flush(); });
        writer_->tell_denials();
    }

    /// Keys change while the generation that has room for the new ones waits to be built; what finds no room
    /// then waits for it too.
    void fill() {
        set_step(kFill);
        const Sent sent = edited(Edit::kFill);
        std::vector<Waiting> waiting;
        must("fill", [&] {
            return writer_->apply_with_build(sent, [&] {
                if (!waiting.empty()) {
                    return;  // before the build failed
                }
                for (const Edit edit : {Edit::kRevokeInBuild, Edit::kAddInBuild, Edit::kUpdateInBuild}) {
                    waiting.push_back(change_in_build(edit));
                }
                link_.ask(What::kRound);
            });
        });
        answered(Edit::kFill);
        if (waiting.back().answer->told && waiting.back().in_time) {
            throw std::runtime_error("the table was not full, and nothing waited for the build");
        }
        for (const Waiting& one : waiting) {
            finish(one);
        }
        // Ends the load that follows when changes came while the source was ahead of what is in force.
        must("reload", [&] { return writer_->load(); });
        link_.ask(What::kRound);
    }

    struct Waiting {
        Edit edit;
        Sent sent;
        std::shared_ptr<Writer::Told> answer;
        bool in_time;  ///< answered before the build
    };
    Waiting change_in_build(Edit edit) {
        Waiting one{edit, edited(edit), nullptr, false};
        one.answer = writer_->send(one.sent);
        one.in_time = one.answer->told;
        if (one.in_time && one.answer->outcome) {
            answered(edit);
        }
        return one;
    }

    /// What waited for a build that was made to fail was told so, with whom the build was for.
    void finish(const Waiting& one) {
        Result<void> result = writer_->await(one.answer);
        if (!result && order_met()) {
            result = writer_->apply(one.sent);
        }
        if (!result) {
            throw std::runtime_error("change during the build: " + result.error().message);
        }
        answered(one.edit);
    }

    void superseded() {
        set_step(kSuperseded);
        apply(Edit::kDisableSuperseded);
        apply(Edit::kRevokeSuperseded);
        reload(Edit::kRemoveSuperseded);
        reload(Edit::kRaiseLimits);
        link_.ask(What::kRound);
        set_step(kFlushTwo);
        must("flush", [&] { return writer_->flush(); });
        writer_->tell_denials();
        link_.ask(What::kRound);
        link_.ask(What::kLetGo);
        set_step(kHarvest);
        harvest();
        writer_->beat();
        link_.ask(What::kRound);
    }

    void broken_source() {
        set_step(kBrokenSource);
        link_.ask(What::kBreakSource);
        if (writer_->load()) {
            fail_promise("a broken source was accepted");
        }
        link_.ask(What::kRound);
        link_.ask(What::kMendSource);
        must("reload", [&] { return writer_->load(); });
    }

    void fill_again() {
        set_step(kFillAgain);
        apply(Edit::kFillAgain);
        apply(Edit::kRevokeThird);
        link_.ask(What::kRound);
    }

    void restart() {
        set_step(kStop);
        stop();
        link_.ask(What::kRound);
        open_again(kOpenAgain, kLoadAgain);
        must("flush", [&] { return writer_->flush(); });
        link_.ask(What::kLetGo);
        set_step(kHarvestAgain);
        harvest();
        link_.ask(What::kRound);
    }

    /// `control` turns out to be of another boot: a new one is made, and the clients are told.
    void other_control() {
        set_step(kOtherControl);
        stop();
        link_.ask(What::kOtherBoot);
        open_again(kOtherControl, kOtherControl);
        link_.ask(What::kRound);
    }

    void open_again(Step opening, Step loading) {
        set_step(opening);
        writer_ = std::make_unique<Writer>(site_);
        must("open", [&] { return writer_->open(); });
        set_step(loading);
        must("load", [&] { return writer_->load(); });
        link_.ask(What::kLoaded);
        writer_->serve();
    }

    const Link& link_;
    const Site& site_;
    std::function<void()> arm_;
    KeySet keys_;
    std::unique_ptr<Writer> writer_;
    bool refused_ = false;
};

int run_walk(const Link& link, Walk& walk, void (Walk::*part)()) {
    try {
        (walk.*part)();
        return 0;
    } catch (const std::exception& error) {
        link.ask(What::kFailed, 0, error.what());
        return 1;
    }
}

}  // namespace

const char* step_name(uint8_t step) {
    return step < std::size(kSteps) ? kSteps[step] : "?";
}

int walk(const Site& site, const Link& link, const std::function<void()>& arm) {
    Walk walk(site, link, arm);
    return run_walk(link, walk, &Walk::all);
}

int come_after(const Site& site, const Link& link, const std::function<void()>& arm) {
    Walk walk(site, link, arm);
    return run_walk(link, walk, &Walk::after);
}

}  // namespace apikey::crash
