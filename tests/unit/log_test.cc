#include "runtime/log.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/owned_fd.h"
#include "loop_fixture.h"

namespace apikeyd {
namespace {

namespace fs = std::filesystem;

std::string logfmt(std::initializer_list<LogField> fields) {
    return format_log_line(LogFormat::logfmt, "", "", LogLevel::info, "e", {fields.begin(), fields.size()});
}
std::string json(std::initializer_list<LogField> fields) {
    return format_log_line(LogFormat::json, "", "", LogLevel::info, "e", {fields.begin(), fields.size()});
}

std::vector<std::string> lines_of(const fs::path& path) {
    std::ifstream file(path);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) {
        lines.push_back(line);
    }
    return lines;
}

std::unique_ptr<Log> open_log(const LogOptions& options) {
    auto log = Log::open(options);
    if (!log) {
        ADD_FAILURE() << log.error().message;
        return nullptr;
    }
    return std::move(*log);
}

TEST(LogFormat, WritesOneLineWithTypedValues) {
    EXPECT_EQ(
        format_log_line(LogFormat::logfmt, "", "2026-01-02T03:04:05.006Z", LogLevel::warn, "reload.done", {}),
        "time=2026-01-02T03:04:05.006Z level=warn event=reload.done\n");
    EXPECT_EQ(
        format_log_line(LogFormat::json, "", "2026-01-02T03:04:05.006Z", LogLevel::error, "reload.done", {}),
        "{\"time\":\"2026-01-02T03:04:05.006Z\",\"level\":\"error\",\"event\":\"reload.done\"}\n");
    const std::string text = "abc";
    EXPECT_EQ(logfmt({{"keys", 12040},
                      {"big", std::numeric_limits<std::uint64_t>::max()},
                      {"ok", true},
                      {"share", 0.5},
                      {"path", text}}),
              "level=info event=e keys=12040 big=18446744073709551615 ok=true share=0.5 path=abc\n");
    EXPECT_EQ(json({{"keys", -7},
                    {"ok", false},
                    {"share", 0.5},
                    {"path", "abc"},
                    {"none", std::numeric_limits<double>::infinity()}}),
              "{\"level\":\"info\",\"event\":\"e\",\"keys\":-7,\"ok\":false,\"share\":0.5,\"path\":\"abc\","
              "\"none\":\"inf\"}\n");
}

TEST(LogFormat, AValueCannotForgeALineOrAField) {
    using namespace std::string_view_literals;
    EXPECT_EQ(logfmt({{"a", "x\nlevel=error"sv}}), "level=info event=e a=\"x\\nlevel=error\"\n");
    EXPECT_EQ(logfmt({{"a", "x level=error"sv}}), "level=info event=e a=\"x level=error\"\n");
    EXPECT_EQ(logfmt({{"a", "q\" b=\"\\"sv}, {"c", ""}}),
              "level=info event=e a=\"q\\\" b=\\\"\\\\\" c=\"\"\n");
    EXPECT_EQ(json({{"a", "\"},\r\t\0\x1b"sv}}),
              "{\"level\":\"info\",\"event\":\"e\",\"a\":\"\\\"},\\r\\t\\u0000\\u001b\"}\n");
    // C1 controls and marks that turn the direction of writing, which terminals obey.
    EXPECT_EQ(logfmt({{"a", "\xC2\x9B\xE2\x80\xAE\x7F"}}),
              "level=info event=e a=\"\\u009b\\u202e\\u007f\"\n");
}

TEST(LogFormat, ShowsNoSecretOfAKey) {
    const std::string key = "ak_live_2RkT9pQwX4Za_0123456789abcdefghijklmnopq000000";
    EXPECT_EQ(logfmt({{"name", key}, {"result", "'" + key + ";' is no state"}}),
              "level=info event=e name=ak_live_2RkT9pQwX4Za_... "
              "result=\"'ak_live_2RkT9pQwX4Za_...;' is no state\"\n");
    EXPECT_EQ(json({{"metadata", "[\"" + key + "\"]"}}),
              "{\"level\":\"info\",\"event\":\"e\",\"metadata\":\"[\\\"ak_live_2RkT9pQwX4Za_...\\\"]\"}\n");
}

TEST(LogFormat, KeepsUtf8AndReplacesWhatIsNone) {
    EXPECT_EQ(json({{"a", "Grüße €😀"}}), "{\"level\":\"info\",\"event\":\"e\",\"a\":\"Grüße €😀\"}\n");
    const std::string bad = "�";
    const std::array<std::pair<std::string, int>, 7> cases = {{
        {"\xFF", 1},              // no lead byte
        {"\xC3", 1},              // cut
        {"\xC0\xAF", 2},          // overlong '/'
        {"\xE0\x80\x80", 3},      // overlong
        {"\xED\xA0\x80", 3},      // surrogate
        {"\xF4\x90\x80\x80", 4},  // above U+10FFFF
        {"\x80", 1},              // stray continuation
    }};
    for (const auto& [bytes, replaced] : cases) {
        std::string expected = "level=info event=e a=\"x";
        for (int i = 0; i < replaced; ++i) {
            expected += bad;
        }
        EXPECT_EQ(logfmt({{"a", "x" + bytes + "y"}}), expected + "y\"\n");
    }
}

TEST(LogFormat, CutsLongValues) {
    const std::string line = logfmt({{"a", std::string(1'000'000, 'x')}});
    EXPECT_EQ(line, "level=info event=e a=\"" + std::string(kLogValueBytesMax, 'x') + "...\"\n");
}

TEST(LogFormat, TimeIsRfc3339WithMilliseconds) {
    using namespace std::chrono;
    EXPECT_EQ(rfc3339_ms(system_clock::time_point(milliseconds(0))), "1970-01-01T00:00:00.000Z");
    EXPECT_EQ(rfc3339_ms(system_clock::time_point(milliseconds(1'709'251'199'999))),
              "2024-02-29T23:59:59.999Z");
}

TEST(LogFile, HasItsModeWhateverTheUmaskAndIsAppendedTo) {
    const TemporaryDirectory directory;
    const fs::path path = directory / "log";
    const mode_t before = ::umask(0077);
    open_log({.path = path})->info("one");
    ::umask(before);
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0640U);
    ASSERT_EQ(::chmod(path.c_str(), 0600), 0);  // the operator's choice stays
    open_log({.path = path})->info("two");
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0600U);
    const auto lines = lines_of(path);
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_TRUE(lines[0].ends_with("Z level=info event=one")) << lines[0];
    EXPECT_TRUE(lines[1].ends_with("Z level=info event=two")) << lines[1];
}

TEST(LogFile, RefusesASymbolicLinkAndNamesThePath) {
    const TemporaryDirectory directory;
    std::ofstream(directory / "target").close();
    fs::create_symlink("target", directory / "log");
    const auto log = Log::open({.path = directory / "log"});
    ASSERT_FALSE(log.has_value());
    EXPECT_NE(log.error().message.find((directory / "log").string()), std::string::npos);
    EXPECT_NE(log.error().message.find("symbolic link"), std::string::npos);
    EXPECT_FALSE(Log::open({.path = directory / "none/log"}).has_value());
}

TEST(LogFile, LeavesOutLevelsBelowTheMinimum) {
    const TemporaryDirectory directory;
    const auto log = open_log({.level_min = LogLevel::warn, .path = directory / "log"});
    log->debug("a");
    log->info("b");
    log->warn("c");
    log->error("d");
    const auto lines = lines_of(directory / "log");
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_TRUE(lines[0].ends_with("level=warn event=c"));
    EXPECT_TRUE(lines[1].ends_with("level=error event=d"));
}

TEST(LogFile, ReopensAfterRotation) {
    const TemporaryDirectory directory;
    const auto log = open_log({.path = directory / "log"});
    log->info("one");
    fs::rename(directory / "log", directory / "log.1");
    log->info("two");
    ASSERT_TRUE(log->reopen());
    log->info("three");
    EXPECT_EQ(lines_of(directory / "log.1").size(), 2U);
    const auto lines = lines_of(directory / "log");
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_TRUE(lines[0].ends_with("event=three"));
}

TEST(LogFile, AFailedReopenKeepsTheOldFileAndSaysSo) {
    const TemporaryDirectory directory;
    fs::create_directory(directory / "d");
    const auto log = open_log({.path = directory.path() / "d" / "log"});
    fs::rename(directory / "d", directory / "moved");
    EXPECT_FALSE(log->reopen());
    log->info("still.here");
    const auto lines = lines_of(directory.path() / "moved" / "log");
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_NE(lines[0].find("event=log.reopen_failed"), std::string::npos);
    EXPECT_TRUE(lines[1].ends_with("event=still.here"));
}

TEST(LogFile, AFileThatWasRemovedIsMadeAgain) {
    const TemporaryDirectory directory;
    fs::create_directory(directory / "d");
    const auto log = open_log({.path = directory.path() / "d" / "log"});
    log->info("gone");
    fs::remove_all(directory / "d");
    log->info("lost");
    EXPECT_EQ(log->dropped_lines(), 1U);
    EXPECT_NE(log->problem().find("d/log: No such file or directory"), std::string::npos) << log->problem();
    fs::create_directory(directory / "d");
    log->info("back");
    EXPECT_EQ(log->problem(), "");
    const auto lines = lines_of(directory.path() / "d" / "log");
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_TRUE(lines[0].ends_with("event=log.dropped lines=1")) << lines[0];
    EXPECT_TRUE(lines[1].ends_with("event=back")) << lines[1];
}

TEST(LogFile, OneThatMayBeOpenedLaterIsNoFailure) {
    const TemporaryDirectory directory;
    const fs::path path = directory.path() / "d" / "log";
    const auto log = open_log({.path = path, .open_later = true});
    ASSERT_NE(log, nullptr);
    EXPECT_NE(log->problem(), "");
    log->info("lost");
    EXPECT_FALSE(log->reopen());
    fs::create_directory(directory / "d");
    log->info("back");
    EXPECT_EQ(lines_of(path).size(), 2U);  // the first one tells of those that were lost
    EXPECT_EQ(log->dropped_lines(), 0U);
}

TEST(LogFile, ThreadsDoNotMixLines) {
    const TemporaryDirectory directory;
    const auto log = open_log({.path = directory / "log"});
    constexpr int kThreads = 4;
    constexpr int kLines = 200;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&log, t] {
            for (int i = 0; i < kLines; ++i) {
                log->info("line", {{"thread", t}, {"i", i}});
                if (t == 0 && i % 50 == 0) {
                    EXPECT_TRUE(log->reopen());
                }
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    std::array<int, kThreads> next{};
    for (const std::string& line : lines_of(directory / "log")) {
        int thread = -1;
        int i = -1;
        ASSERT_EQ(std::sscanf(line.c_str(), "time=%*s level=info event=line thread=%d i=%d", &thread, &i), 2)
            << line;
        ASSERT_TRUE(thread >= 0 && thread < kThreads);
        EXPECT_EQ(i, next[static_cast<std::size_t>(thread)]++);
    }
    EXPECT_EQ(next, (std::array<int, kThreads>{kLines, kLines, kLines, kLines}));
}

/// No file grows beyond `bytes` while this lives: a full disk for this process.
class FileSizeLimit {
  public:
    explicit FileSizeLimit(rlim_t bytes) {
        EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &before_), 0);
        old_handler_ = ::signal(SIGXFSZ, SIG_IGN);
        rlimit limit = before_;
        limit.rlim_cur = bytes;
        EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
    }
    FileSizeLimit(const FileSizeLimit&) = delete;
    FileSizeLimit& operator=(const FileSizeLimit&) = delete;
    ~FileSizeLimit() {
        ::setrlimit(RLIMIT_FSIZE, &before_);
        ::signal(SIGXFSZ, old_handler_);
    }

  private:
    rlimit before_{};
    sighandler_t old_handler_ = SIG_DFL;
};

TEST(LogTrouble, AFullDiskLosesLinesCountsThemAndReportsThem) {
    const TemporaryDirectory directory;
    const auto log = open_log({.path = directory / "log"});
    log->info("first");
    {
        const FileSizeLimit limit(fs::file_size(directory / "log") + 10);
        log->info("torn");  // ten bytes of it fit
        log->info("lost");
        EXPECT_EQ(log->dropped_lines(), 2U);
        EXPECT_NE(log->problem().find("log: File too large"), std::string::npos) << log->problem();
    }
    log->info("back");
    EXPECT_EQ(log->dropped_lines(), 0U);
    const auto lines = lines_of(directory / "log");
    ASSERT_EQ(lines.size(), 4U);
    EXPECT_TRUE(lines[0].ends_with("event=first"));
    EXPECT_EQ(lines[1].size(), 10U);  // the torn line ends before the next one begins
    EXPECT_TRUE(lines[2].ends_with("level=warn event=log.dropped lines=2")) << lines[2];
    EXPECT_TRUE(lines[3].ends_with("event=back"));
}

TEST(LogTrouble, AReaderThatDoesNotReadLosesLinesOnly) {
    std::array<int, 2> ends{-1, -1};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
    const OwnedFd reader(ends[0]);
    const OwnedFd writer(ends[1]);
    const auto log = open_log({.stream = writer.get()});
    const std::string padding(4000, 'x');
    for (int i = 0; i < 100; ++i) {  // 400 kB into a pipe of 64 kB
        log->info("fill", {{"padding", padding}});
    }
    const std::uint64_t dropped = log->dropped_lines();
    EXPECT_GT(dropped, 0U);
    std::array<char, 1 << 16> sink;
    while (::read(reader.get(), sink.data(), sink.size()) > 0) {
    }
    log->info("back");
    const ssize_t bytes = ::read(reader.get(), sink.data(), sink.size());
    ASSERT_GT(bytes, 0);
    const std::string text(sink.data(), static_cast<std::size_t>(bytes));
    EXPECT_NE(text.find(fmt::format("event=log.dropped lines={}\n", dropped)), std::string::npos) << text;
    EXPECT_TRUE(text.ends_with("event=back\n"));
}

TEST(LogStream, TheJournalGetsPrioritiesAndNoTime) {
    std::array<int, 2> ends{-1, -1};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    const OwnedFd reader(ends[0]);
    const OwnedFd writer(ends[1]);
    struct stat status {};
    ASSERT_EQ(::fstat(writer.get(), &status), 0);
    const std::string ours = fmt::format("{}:{}", status.st_dev, status.st_ino);
    const auto read_back = [&] {
        std::array<char, 4096> buffer;
        const ssize_t bytes = ::read(reader.get(), buffer.data(), buffer.size());
        return std::string(buffer.data(), bytes > 0 ? static_cast<std::size_t>(bytes) : 0);
    };
    const auto journal =
        open_log({.level_min = LogLevel::debug, .stream = writer.get(), .journal_stream = ours});
    journal->debug("a");
    journal->info("b");
    journal->warn("c");
    journal->error("d");
    EXPECT_EQ(
        read_back(),
        "<7>level=debug event=a\n<6>level=info event=b\n<4>level=warn event=c\n<3>level=error event=d\n");
    // Inherited by a program whose standard error went elsewhere since.
    open_log({.stream = writer.get(), .journal_stream = ours + "0"})->info("e");
    EXPECT_TRUE(read_back().starts_with("time="));
}

}  // namespace
}  // namespace apikeyd
