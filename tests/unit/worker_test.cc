#include "runtime/worker.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

#include "loop_fixture.h"

namespace apikeyd {
namespace {

class WorkerTest : public LoopFixture {
  protected:
    void start(WorkerOptions options = {}) {
        auto started = Worker::start(*loop_, options);
        ASSERT_TRUE(started.has_value()) << started.error().message;
        worker_ = std::move(*started);
    }

    std::unique_ptr<Worker> worker_;
};
INSTANTIATE_TEST_SUITE_P(BothLoops, WorkerTest, both_loops(), loop_param_name);

TEST_P(WorkerTest, RunsJobsInOrderAndTellsOnTheLoopsThread) {
    start();
    std::vector<int>
        jobs;  // no lock: the queue and the eventfd order the accesses, which the thread sanitizer checks
    std::vector<int> told;
    const auto loop_thread = std::this_thread::get_id();
    for (int i = 0; i < 10; ++i) {
        ASSERT_TRUE(worker_->submit(
            [&, i] {
                EXPECT_NE(std::this_thread::get_id(), loop_thread);
                jobs.push_back(i);
            },
            [&, i] {
                EXPECT_EQ(std::this_thread::get_id(), loop_thread);
                told.push_back(i);
                if (i == 9) {
                    loop_->stop();
                }
            }));
    }
    run();
    EXPECT_EQ(jobs, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
    EXPECT_EQ(told, jobs);
}

TEST_P(WorkerTest, ADoneMaySubmitTheNextJob) {
    start();
    int rounds = 0;
    std::function<void()> next = [&] {
        if (++rounds == 100) {
            loop_->stop();
            return;
        }
        ASSERT_TRUE(worker_->submit([] {}, next));
    };
    ASSERT_TRUE(worker_->submit([] {}, next));
    run();
    EXPECT_EQ(rounds, 100);
}

TEST_P(WorkerTest, TheQueueIsBounded) {
    start({.queue_jobs_max = 2});
    std::promise<void> begun;
    std::promise<void> go_on;
    ASSERT_TRUE(worker_->submit(
        [&] {
            begun.set_value();
            go_on.get_future().wait();
        },
        [] {}));
    begun.get_future().wait();  // it has left the queue
    int told = 0;
    EXPECT_TRUE(worker_->submit([] {}, [&] { ++told; }));
    EXPECT_TRUE(worker_->submit([] {},
                                [&] {
                                    ++told;
                                    loop_->stop();
                                }));
    EXPECT_FALSE(worker_->submit([] {}, [&] { ADD_FAILURE() << "a refused job was kept"; }));
    go_on.set_value();
    run();
    EXPECT_EQ(told, 2);
    EXPECT_TRUE(worker_->submit([] {}, [] {}));
}

TEST_P(WorkerTest, StopWaitsForTheRunningJobAndDropsTheRest) {
    start();
    std::promise<void> begun;
    std::atomic<bool> finished{false};
    std::atomic<bool> second_ran{false};
    int told = 0;
    std::weak_ptr<int> kept;
    {
        const auto captured = std::make_shared<int>(1);
        kept = captured;
        ASSERT_TRUE(worker_->submit(
            [&] {
                begun.set_value();
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
                finished = true;
            },
            [&, captured] { ++told; }));
        ASSERT_TRUE(worker_->submit([&, captured] { second_ran = true; }, [&] { ++told; }));
    }
    begun.get_future().wait();
    worker_->stop();
    EXPECT_TRUE(finished);
    EXPECT_FALSE(second_ran);
    EXPECT_TRUE(kept.expired()) << "what the dropped jobs held is still held";
    EXPECT_FALSE(worker_->submit([] {}, [] {}));
    worker_->stop();
    run_for(std::chrono::milliseconds(5));
    EXPECT_EQ(told, 0);
}

TEST_P(WorkerTest, StopInsideADoneDropsTheDonesBehindIt) {
    start();
    std::promise<void> both_ran;
    int told = 0;
    ASSERT_TRUE(worker_->submit([] {},
                                [&] {
                                    ++told;
                                    worker_->stop();
                                    loop_->stop();
                                }));
    ASSERT_TRUE(worker_->submit([] {}, [&] { ++told; }));
    ASSERT_TRUE(worker_->submit([&] { both_ran.set_value(); }, [&] { ++told; }));
    both_ran.get_future().wait();
    run();
    EXPECT_EQ(told, 1);
}

TEST_P(WorkerTest, ItsThreadTakesNoSignals) {
    start();
    sigset_t mask;
    sigemptyset(&mask);
    ASSERT_TRUE(
        worker_->submit([&] { ::pthread_sigmask(SIG_SETMASK, nullptr, &mask); }, [&] { loop_->stop(); }));
    run();
    for (const int number : {SIGHUP, SIGUSR1, SIGTERM, SIGINT, SIGCHLD, SIGALRM}) {
        EXPECT_EQ(sigismember(&mask, number), 1) << number;
    }
}

}  // namespace
}  // namespace apikeyd
