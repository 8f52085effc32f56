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

/// A point of the list, as a person finds it.
struct Listed {
    std::string place;
    Kind kind;
    uint8_t step;
    unsigned hit;  ///< of this place, from 1

    std::string text() const {
        return place + ", hit " + std::to_string(hit) + ", in '" + step_name(step) + "'";
    }
    std::string call() const { return place.substr(0, place.find(' ')); }
};

std::vector<Listed> listed(const Record& record) {
    std::vector<Listed> list;
    std::map<std::string, unsigned> hits;
    for (uint32_t i = 0; i < record.points.load(); ++i) {
        const Place& place = record.place[record.sequence[i].place];
        list.push_back({place.text, place.kind, record.sequence[i].step, ++hits[place.text]});
    }
    return list;
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
    }

    static void TearDownTestSuite() {
        std::printf(
            "%zu points at %u places; %lu runs, %lu kills, %lu injected failures (%lu answered by an error), "
            "%lu promises checked\n",
            points_.size(), records_->walk.places.load(), sums_->runs.load(), sums_->kills.load(),
            sums_->failures.load(), sums_->refused.load(), sums_->judged.load());
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

    static bool all_hits() { return getenv("CRASH_ALL") != nullptr; }
    static bool asked_for(uint32_t index) {
        const char* only = getenv("CRASH_POINT");
        return only == nullptr || strtoul(only, nullptr, 10) == index;
    }

    /// Which points are worth a kill of their own: of each store the first and the last hit in each part of
    /// the scenario and one in between; each system call that changes files, and what comes next. A call that
    /// leaves no trace is the next point's state, but where it is first met.
    static std::set<uint32_t> kill_points(const std::vector<Listed>& points) {
        std::set<uint32_t> chosen;
        std::map<std::pair<std::string, uint8_t>, std::vector<uint32_t>> hits;
        for (uint32_t i = 0; i < points.size(); ++i) {
            hits[{points[i].place, points[i].kind == Kind::kLook ? uint8_t{0} : points[i].step}].push_back(i);
            if (all_hits() || points[i].kind == Kind::kChange || points[i].kind == Kind::kWrite) {
                chosen.insert(i);
                chosen.insert(std::min<uint32_t>(i + 1, static_cast<uint32_t>(points.size()) - 1));
            }
        }
        for (const auto& [place, indices] : hits) {
            chosen.insert({indices.front(), indices[indices.size() / 2], indices.back()});
        }
        return chosen;
    }

    template <typename Add>
    static void for_each_kill(const std::vector<Listed>& points, Add add) {
        for (const uint32_t index : kill_points(points)) {
            if (!asked_for(index)) {
                continue;
            }
            const std::string what = "point " + std::to_string(index) + ", " + points[index].text();
            add(Order{index, Fate::kKill, 0}, "killed before " + what);
            if (points[index].kind == Kind::kWrite) {
                add(Order{index, Fate::kKillHalfway, 0}, "killed halfway through " + what);
            }
        }
    }

    static Sums* sums_;
    static Records* records_;
    static std::vector<Listed> points_;
};
Sums* CrashTest::sums_ = nullptr;
Records* CrashTest::records_ = nullptr;
std::vector<Listed> CrashTest::points_;

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
    auto apart = unreached();
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
        apart.erase(entry);
    }
    for (const auto& [entry, reason] : apart) {
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
    for_each_kill(points_, [&](const Order& order, const std::string& what) {
        tasks.push_back({{.walk = order}, what});
    });
    do_all(tasks);
}

}  // namespace
}  // namespace apikey::crash
