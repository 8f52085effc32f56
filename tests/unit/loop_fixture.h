// A loop of each back end for the tests of what hangs on it, with a watchdog instead of a hang.

#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "runtime/loop.h"

namespace apikeyd {

/// Both back ends: INSTANTIATE_TEST_SUITE_P(BothLoops, Suite, both_loops(), loop_param_name).
class LoopFixture : public testing::TestWithParam<LoopKind> {
  protected:
    void SetUp() override {
        auto made = make_loop(GetParam());
        ASSERT_TRUE(made.has_value()) << made.error().message;
        loop_ = std::move(*made);
    }

    /// Runs until something stops the loop; fails when nothing does within a minute.
    void run() {
        const TimerId watchdog = loop_->after(std::chrono::minutes(1), [this] {
            ADD_FAILURE() << "nothing stopped the loop";
            loop_->stop();
        });
        const auto result = loop_->run();
        loop_->cancel(watchdog);
        ASSERT_TRUE(result.has_value()) << result.error().message;
    }

    /// Runs until `condition` holds, looking after each millisecond; fails as run() does.
    void run_until(const std::function<bool()>& condition) {
        const TimerId check = loop_->every(std::chrono::milliseconds(1), [&] {
            if (condition()) {
                loop_->stop();
            }
        });
        run();
        loop_->cancel(check);
    }

    /// Lets the loop turn for a while, for tests that something does not happen.
    void run_for(std::chrono::milliseconds duration) {
        loop_->after(duration, [this] { loop_->stop(); });
        run();
    }

    std::unique_ptr<Loop> loop_;
};

inline auto both_loops() {
    return testing::Values(LoopKind::io_uring, LoopKind::epoll);
}

inline std::string loop_param_name(const testing::TestParamInfo<LoopKind>& info) {
    return info.param == LoopKind::io_uring ? "io_uring" : "epoll";
}

/// An empty directory that goes with the test.
class TemporaryDirectory {
  public:
    TemporaryDirectory() {
        std::string pattern = (std::filesystem::temp_directory_path() / "apikeyd-test-XXXXXX").string();
        const char* made = ::mkdtemp(pattern.data());
        if (made == nullptr) {
            ADD_FAILURE() << "cannot make " << pattern;
            return;
        }
        path_ = std::filesystem::canonical(made);
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    ~TemporaryDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

  private:
    std::filesystem::path path_;
};

}  // namespace apikeyd
