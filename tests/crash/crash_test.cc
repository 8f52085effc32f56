// Promises 1, 2 and 5 at every point at which the daemon can be killed, and at every system call of it that
// can fail: no key that was valid and stays valid is refused, no key that was never valid and none whose
// revocation was answered is accepted, in whichever generation a server still maps; the totals equal the
// servers' own tallies; every table scans whole, and nothing that nobody needs stays in the directory.
//
// The scenario (scenario.cc) is walked once to list its points, then once for each that is chosen, with a
// SIGKILL there or a failure. CRASH_ALL=1 takes every hit of every point, CRASH_POINT=N only the point N.

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/crash/choices.h"
#include "tests/crash/run.h"
#include "tests/crash/scenario.h"

namespace apikey::crash {
namespace {

constexpr unsigned kRunners = 2;
constexpr size_t kProblemBytes = 1 << 16;

template <typename T>
T* share() {
    void* memory =
        mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        throw std::runtime_error("no shared memory");
    }
    return static_cast<T*>(memory);
}

/// What all runners add to, and take their work from.
struct Sums {
    std::atomic<size_t> next;
    std::atomic<uint64_t> runs;
    std::atomic<uint64_t> kills;
    std::atomic<uint64_t> failures;  ///< injected
    std::atomic<uint64_t> refused;
    std::atomic<uint64_t> judged;
    std::atomic<size_t> problem_bytes;
    char problems[kProblemBytes];
};

struct Task {
    Plan plan;
    std::string what;
};

/// A first kill that leaves much to be done: at a store, told by its code, or a system call.
struct First {
    const char* place;
    const char* step;
    unsigned hit;  ///< in that part of the scenario, from 1
};
constexpr First kFirsts[] = {
    {"rename table.", "fill", 1},  // cells have their name, the table has not
    {"words().current_next.store(make_current_next(next()", "fill", 1},
    {"at.meta.store(meta, std::memory_order_seq_cst)", "superseded", 2},  // made in the older table only
    {"pwrite usage.db-wal", "flush two", 2},
    {"unlink table.", "harvest", 1},  // closed, and still there
    {"rename control", "other control", 1},
    {"->state.store(static_cast<uint32_t>(ControlState::kSuperseded)", "other control", 1},
};

/// The place of the last store with this code; what is no code of a store is a place itself.
std::string place_of(const std::string& text) {
    std::string place = text;
    std::ifstream in(CRASH_STORE_PLACES);
    for (std::string line; std::getline(in, line);) {
        if (const size_t code = line.find(" | "); line.compare(code + 3, text.size(), text) == 0) {
            place = line.substr(0, code);
        }
    }
    return place;
}

class CrashTest : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        sums_ = share<Sums>();
        records_ = share<Records>();
        const Outcome outcome = run({.record = true}, records_);
        sums_->judged += outcome.judged;
        ASSERT_EQ(outcome.problem, "");
        ASSERT_LT(records_->walk.points.load(), kPointsMax);
        points_ = listed(records_->walk);
        places_ = records_->walk.places.load();
    }

    static void TearDownTestSuite() {
        std::printf(
            "%zu points at %u places; %lu runs, %lu kills, %lu injected failures (%lu answered by an error), "
            "%lu promises checked\n",
            points_.size(), places_, sums_->runs.load(), sums_->kills.load(), sums_->failures.load(),
            sums_->refused.load(), sums_->judged.load());
    }

    static void note_problem(const std::string& text) {
        const size_t at = sums_->problem_bytes.fetch_add(text.size() + 1);
        if (at + text.size() + 1 < kProblemBytes) {
            memcpy(sums_->problems + at, text.c_str(), text.size());
            sums_->problems[at + text.size()] = '\n';
        }
    }

    static void do_task(const Task& task, Records* records) {
        const Outcome outcome = run(task.plan, records);
        const Fate fate = task.plan.again ? task.plan.after.fate : task.plan.walk.fate;
        const bool kills = fate == Fate::kKill || fate == Fate::kKillHalfway;
        sums_->runs += 1;
        sums_->kills += (kills ? 1 : 0) + (task.plan.again ? 1 : 0);
        sums_->failures += kills ? 0 : 1;
        sums_->refused += outcome.refused ? 1 : 0;
        sums_->judged += outcome.judged;
        if (!outcome.problem.empty()) {
            note_problem(task.what + ": " + outcome.problem);
        }
    }

    /// Each task by one of the runners, which are processes: a server must not be in the process that forks.
    static void do_all(const std::vector<Task>& tasks) {
        sums_->next.store(0);
        sums_->problem_bytes.store(0);
        memset(sums_->problems, 0, kProblemBytes);
        std::vector<pid_t> runners;
        for (unsigned i = 0; i < kRunners; ++i) {
            const pid_t runner = fork();
            if (runner == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                auto* records = share<Records>();
                for (size_t task; (task = sums_->next.fetch_add(1)) < tasks.size();) {
                    try {
                        do_task(tasks[task], records);
                    } catch (const std::exception& error) {
                        note_problem(tasks[task].what + ": " + error.what());
                    }
                }
                _exit(0);
            }
            runners.push_back(runner);
        }
        for (const pid_t runner : runners) {
            int status = 0;
            waitpid(runner, &status, 0);
            EXPECT_EQ(status, 0) << "a runner ended by itself";
        }
        EXPECT_EQ(std::string(sums_->problems), "");
        EXPECT_GE(sums_->next.load(), tasks.size());
    }

    static Choose chosen(Choose usually) { return getenv("CRASH_ALL") != nullptr ? Choose::kAll : usually; }
    static bool asked_for(uint32_t index) {
        const char* only = getenv("CRASH_POINT");
        return only == nullptr || strtoul(only, nullptr, 10) == index;
    }

    /// kNowhere when there is no such point any more.
    static uint32_t index_of(const First& first) {
        const std::string place = place_of(first.place);
        unsigned hit = 0;
        for (uint32_t i = 0; i < points_.size(); ++i) {
            if (points_[i].place == place && std::string(step_name(points_[i].step)) == first.step &&
                ++hit == first.hit) {
                return i;
            }
        }
        return kNowhere;
    }

    static Sums* sums_;
    static Records* records_;
    static std::vector<Listed> points_;
    static uint32_t places_;
};
Sums* CrashTest::sums_ = nullptr;
Records* CrashTest::records_ = nullptr;
std::vector<Listed> CrashTest::points_;
uint32_t CrashTest::places_ = 0;

/// Lines of `file | line of code | reason`.
std::map<std::pair<std::string, std::string>, std::string> unreached() {
    std::map<std::pair<std::string, std::string>, std::string> entries;
    std::ifstream in(CRASH_UNREACHED);
    for (std::string line; std::getline(in, line);) {
        const size_t code = line.find(" | ");
        const size_t reason = line.rfind(" | ");
        if (!line.empty() && line[0] != '#') {
            entries[{line.substr(0, code), line.substr(code + 3, reason - code - 3)}] =
                line.substr(reason + 3);
        }
    }
    return entries;
}

TEST_F(CrashTest, EveryStoreOfTheSourcesIsReached) {
    std::set<std::string> reached;
    for (const Listed& point : points_) {
        reached.insert(point.place);
    }
    const auto apart = unreached();
    auto gone = apart;  // entries that stand for no line
    std::ifstream in(CRASH_STORE_PLACES);
    size_t stores = 0;
    for (std::string line; std::getline(in, line); ++stores) {
        const std::string place = line.substr(0, line.find(" | "));
        const std::pair entry{place.substr(0, place.rfind(':')), line.substr(line.find(" | ") + 3)};
        if (reached.contains(place)) {
            EXPECT_FALSE(apart.contains(entry)) << line << ": is reached; take it out of unreached.txt";
        } else {
            EXPECT_EQ(apart.count(entry), 1U) << line << ": never reached";
        }
        gone.erase(entry);
    }
    for (const auto& [entry, reason] : gone) {
        ADD_FAILURE() << "unreached.txt: no such line any more: " << entry.first << " | " << entry.second;
    }
    EXPECT_GT(stores, 30U) << "the list is not one of the daemon's stores";
    std::printf("%zu stores in the sources\n", stores);
}

TEST_F(CrashTest, ThePointsComeInTheSameOrder) {
    auto* records = share<Records>();
    const Outcome outcome = run({.record = true}, records);
    ASSERT_EQ(outcome.problem, "");
    const std::vector<Listed> again = listed(records->walk);
    for (size_t i = 0; i < std::min(again.size(), points_.size()); ++i) {
        ASSERT_EQ(again[i].text(), points_[i].text()) << "at point " << i;
    }
    EXPECT_EQ(again.size(), points_.size());
    munmap(records, sizeof *records);
}

TEST_F(CrashTest, KilledAtEachPoint) {
    std::vector<Task> tasks;
    for (const Choice& choice : choose_kills(points_, chosen(Choose::kUsual))) {
        if (asked_for(choice.order.at)) {
            tasks.push_back({{.walk = choice.order}, choice.text});
        }
    }
    do_all(tasks);
}

/// What fails says so, naming the file, or succeeds all the same; what was in force goes on; it succeeds when
/// it is asked for again.
TEST_F(CrashTest, FailingAtEachSystemCall) {
    std::vector<Task> tasks;
    for (const Choice& choice : choose_failures(points_, chosen(Choose::kUsual))) {
        if (asked_for(choice.order.at)) {
            tasks.push_back({{.walk = choice.order}, choice.text});
        }
    }
    do_all(tasks);
}

/// The writer that comes after is killed as well, where there is most for it to do.
TEST_F(CrashTest, KilledAgainWhileRecovering) {
    std::vector<Task> tasks;
    for (const First& first : kFirsts) {
        Plan plan{.walk = {index_of(first), Fate::kKill, 0}, .again = true, .record = true};
        const Outcome outcome = run(plan, records_);
        ASSERT_EQ(outcome.problem, "") << first.place << " in " << first.step;
        plan.record = false;
        const std::string before = std::string(", after a kill at ") + first.place + " in " + first.step;
        for (const Choice& choice : choose_kills(listed(records_->after), chosen(Choose::kFirstHits))) {
            plan.after = choice.order;
            if (asked_for(choice.order.at)) {
                tasks.push_back({plan, choice.text + before});
            }
        }
    }
    do_all(tasks);
}

}  // namespace
}  // namespace apikey::crash
