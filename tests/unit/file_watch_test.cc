#include "runtime/file_watch.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "loop_fixture.h"
#include "runtime/link_chain.h"

namespace apikeyd {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

void write_file(const fs::path& path, const std::string& text) {
    std::ofstream file(path, std::ios::trunc);
    file << text;
    file.close();
    ASSERT_TRUE(file.good()) << path;
}

std::string read_file(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// A caller as the header wants it: reads after each changed().
class FileWatchTest : public LoopFixture {
  protected:
    static constexpr std::int64_t kNeverMs = 3'600'000;

    void watch(const fs::path& path, FileWatchOptions options) {
        path_ = path;
        auto created = FileWatch::create(*loop_, path.string(), options, [this] {
            ++changes_;
            content_ = read_file(path_);
        });
        ASSERT_TRUE(created.has_value()) << created.error().message;
        file_ = std::move(*created);
        content_ = read_file(path_);
    }

    /// inotify alone: a poll would hide what inotify misses.
    void watch_by_inotify(const fs::path& path) { watch(path, {.debounce_ms = 1, .poll_ms = kNeverMs}); }

    void await_content(const std::string& wanted) {
        run_until([&] { return content_ == wanted; });
        EXPECT_EQ(content_, wanted);
    }

    TemporaryDirectory directory_;
    fs::path path_;
    std::unique_ptr<FileWatch> file_;
    std::string content_;
    int changes_ = 0;
};
INSTANTIATE_TEST_SUITE_P(BothLoops, FileWatchTest, both_loops(), loop_param_name);

TEST_P(FileWatchTest, SeesAWriteInPlace) {
    write_file(directory_ / "keys.yaml", "one");
    watch_by_inotify(directory_ / "keys.yaml");
    EXPECT_EQ(file_->inotify_problem(), "");
    write_file(directory_ / "keys.yaml", "two");
    await_content("two");
    write_file(directory_ / "keys.yaml", "three");
    await_content("three");
}

TEST_P(FileWatchTest, SeesARenameOverTheFile) {
    write_file(directory_ / "keys.yaml", "one");
    watch_by_inotify(directory_ / "keys.yaml");
    for (const std::string text : {"two", "three"}) {
        write_file(directory_ / "keys.yaml~", text);
        fs::rename(directory_ / "keys.yaml~", directory_ / "keys.yaml");
        await_content(text);
    }
}

TEST_P(FileWatchTest, SeesAConfigMapSwap) {
    // As the kubelet lays it out and replaces it.
    const auto lay_out = [&](const std::string& version, const std::string& text) {
        fs::create_directory(directory_ / version);
        write_file(directory_.path() / version / "keys.yaml", text);
        fs::create_symlink(version, directory_ / "..data_tmp");
        fs::rename(directory_ / "..data_tmp", directory_ / "..data");
    };
    lay_out("..2026_01", "one");
    fs::create_symlink("..data/keys.yaml", directory_ / "keys.yaml");
    watch_by_inotify(directory_ / "keys.yaml");
    ASSERT_EQ(content_, "one");
    lay_out("..2026_02", "two");
    fs::remove_all(directory_ / "..2026_01");
    await_content("two");
    lay_out("..2026_03", "three");
    await_content("three");
    write_file(directory_.path() / "..2026_03" / "keys.yaml", "four");
    await_content("four");
}

TEST_P(FileWatchTest, SeesALinkedDirectorySwitchedByAnAbsoluteLink) {
    fs::create_directories(directory_.path() / "releases" / "1");
    fs::create_directories(directory_.path() / "releases" / "2");
    write_file(directory_.path() / "releases" / "1" / "keys.yaml", "one");
    write_file(directory_.path() / "releases" / "2" / "keys.yaml", "two");
    fs::create_symlink(directory_.path() / "releases" / "1", directory_ / "current");
    watch_by_inotify(directory_.path() / "current" / "keys.yaml");
    ASSERT_EQ(content_, "one");
    fs::remove(directory_ / "current");
    fs::create_symlink(directory_.path() / "releases" / "2", directory_ / "current");
    await_content("two");
}

TEST_P(FileWatchTest, SeesTheDirectoryDeletedAndMadeAgain) {
    const fs::path inner = directory_.path() / "a" / "b";
    fs::create_directories(inner);
    write_file(inner / "keys.yaml", "one");
    watch_by_inotify(inner / "keys.yaml");
    fs::remove_all(directory_ / "a");
    await_content("");  // told of the loss
    fs::create_directories(inner);
    write_file(inner / "keys.yaml", "two");
    await_content("two");
    write_file(inner / "keys.yaml", "three");
    await_content("three");
}

TEST_P(FileWatchTest, SeesADirectoryHigherUpReplaced) {
    for (const std::string name : {"live", "next"}) {
        fs::create_directories(directory_.path() / name / "b");
        write_file(directory_.path() / name / "b" / "keys.yaml", name);
    }
    watch_by_inotify(directory_.path() / "live" / "b" / "keys.yaml");
    fs::rename(directory_ / "live", directory_ / "old");
    fs::rename(directory_ / "next", directory_ / "live");
    await_content("next");
}

TEST_P(FileWatchTest, SeesAFileThatWasNotThereAndOneThatIsMadeReadable) {
    watch_by_inotify(directory_ / "keys.yaml");
    write_file(directory_ / "keys.yaml", "one");
    await_content("one");
    const int before = changes_;
    ASSERT_EQ(::chmod((directory_ / "keys.yaml").c_str(), 0600), 0);
    run_until([&] { return changes_ > before; });
    EXPECT_GT(changes_, before);
}

TEST_P(FileWatchTest, DoesNotTellOfOtherFilesOrOfReading) {
    write_file(directory_ / "keys.yaml", "one");
    watch_by_inotify(directory_ / "keys.yaml");
    write_file(directory_ / "keys.yaml.bak", "x");
    fs::rename(directory_ / "keys.yaml.bak", directory_ / "keys.yaml.old");
    EXPECT_EQ(read_file(directory_ / "keys.yaml"), "one");
    run_for(milliseconds(30));
    EXPECT_EQ(changes_, 0);
}

TEST_P(FileWatchTest, ManyWritesWithinTheWindowAreToldOnce) {
    write_file(directory_ / "keys.yaml", "0");
    watch(directory_ / "keys.yaml", {.debounce_ms = 50, .poll_ms = kNeverMs});
    for (int i = 1; i <= 20; ++i) {
        write_file(directory_ / "keys.yaml", std::to_string(i));
    }
    await_content("20");
    EXPECT_EQ(changes_, 1);
}

TEST_P(FileWatchTest, PollingFindsChangesWhereInotifyIsBlind) {
    write_file(directory_ / "keys.yaml", "one");
    watch(directory_ / "keys.yaml", {.debounce_ms = 1, .poll_ms = 2, .use_inotify = false});
    run_for(milliseconds(20));
    EXPECT_EQ(changes_, 0) << "told of a change where there was none";
    write_file(directory_ / "keys.yaml", "two, longer");
    await_content("two, longer");
    write_file(directory_ / "new", "six");
    fs::rename(directory_ / "new", directory_ / "keys.yaml");
    await_content("six");
    fs::remove(directory_ / "keys.yaml");
    await_content("");
    write_file(directory_ / "keys.yaml", "back");
    await_content("back");
}

TEST_P(FileWatchTest, PollingFindsAChangeThatLeavesSizeAndTimesAlike) {
    write_file(directory_ / "keys.yaml", "one");
    watch(directory_ / "keys.yaml", {.debounce_ms = 1, .poll_ms = 2, .use_inotify = false});
    // The first change is found; the second one is made where the clock of a coarse file system would not
    // tell it from the first: the watch must look again by itself.
    write_file(directory_ / "keys.yaml", "two");
    await_content("two");
    const int before = changes_;
    run_until([&] { return changes_ > before; });
    EXPECT_GT(changes_, before);
}

TEST_P(FileWatchTest, RefusesAnEmptyPath) {
    EXPECT_FALSE(FileWatch::create(*loop_, "", {}, [] {}).has_value());
}

class RecordedChain final : public LinkChainVisitor {
  public:
    void passing(const std::string& directory) override { passed.push_back(directory); }
    bool deciding(const std::string& directory, const std::string& name) override {
        entries.emplace_back(directory, name);
        return entries.size() != end_at;
    }
    std::vector<std::string> passed;
    std::vector<std::pair<std::string, std::string>> entries;
    std::size_t end_at = 0;
};

using Entries = std::vector<std::pair<std::string, std::string>>;

TEST(LinkChain, TellsTheEntriesThatDecide) {
    const TemporaryDirectory directory;
    const std::string root = directory.path().string();
    fs::create_directory(directory / "v1");
    write_file(directory.path() / "v1" / "keys.yaml", "x");
    fs::create_symlink("v1", directory / "..data");
    fs::create_symlink("./..data//keys.yaml", directory / "keys.yaml");
    RecordedChain chain;
    EXPECT_TRUE(walk_link_chain(root + "/v1/../keys.yaml", chain));
    EXPECT_EQ(chain.entries, (Entries{{root, "keys.yaml"}, {root, "..data"}, {root + "/v1", "keys.yaml"}}));
    EXPECT_EQ(chain.passed.front(), "/");

    RecordedChain missing;
    EXPECT_TRUE(walk_link_chain(root + "/none/below/keys.yaml", missing));
    EXPECT_EQ(missing.entries, (Entries{{root, "none"}}));

    RecordedChain ended;
    ended.end_at = 2;
    EXPECT_FALSE(walk_link_chain(root + "/keys.yaml", ended));
    EXPECT_EQ(ended.entries.size(), 2U);
}

TEST(LinkChain, EndsInACircleOfLinks) {
    const TemporaryDirectory directory;
    fs::create_symlink("b", directory / "a");
    fs::create_symlink("a", directory / "b");
    RecordedChain chain;
    EXPECT_TRUE(walk_link_chain((directory / "a").string(), chain));
    EXPECT_EQ(chain.entries.size(), 41U);
}

}  // namespace
}  // namespace apikeyd
