#include "source/key_set_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "source/yaml_editor.h"

namespace apikeyd {
namespace {

class source_KeySetFile : public ::testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/apikeyd-file-test.XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        directory_ = std::filesystem::canonical(name).string();
        path_ = directory_ + "/keys.yaml";
        put(path_, "old\n");
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    static void put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
    static std::string get(const std::string& path) {
        std::ifstream in(path);
        std::stringstream text;
        text << in.rdbuf();
        return text.str();
    }
    [[nodiscard]] std::set<std::string> names() const {
        std::set<std::string> out;
        for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
            out.insert(entry.path().filename().string());
        }
        return out;
    }

    std::string directory_;
    std::string path_;
};

TextEdit to(const std::string& text) {
    return [text](std::string_view) -> Result<std::string> { return text; };
}

const std::set<std::string> kClean = {"keys.yaml", "keys.yaml.lock"};

TEST_F(source_KeySetFile, ReplacesTheTextAndTellsBothFingerprints) {
    ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
    if (geteuid() == 0) {
        ASSERT_EQ(chown(path_.c_str(), 12, 34), 0);
    }
    struct stat before {};
    ASSERT_EQ(stat(path_.c_str(), &before), 0);
    std::string seen;
    const auto done = rewrite_file(path_, [&](std::string_view old) -> Result<std::string> {
        seen = old;
        return std::string("new\n");
    });
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(seen, "old\n");
    EXPECT_EQ(get(path_), "new\n");
    EXPECT_TRUE(done->written);
    EXPECT_EQ(done->before, fingerprint("old\n"));
    EXPECT_EQ(done->after, fingerprint("new\n"));
    EXPECT_NE(done->after, done->before);
    struct stat after {};
    ASSERT_EQ(stat(path_.c_str(), &after), 0);
    EXPECT_EQ(after.st_mode, before.st_mode);
    EXPECT_EQ(after.st_uid, before.st_uid);
    EXPECT_EQ(after.st_gid, before.st_gid);
    EXPECT_NE(after.st_ino, before.st_ino);
    EXPECT_EQ(names(), kClean);
    ASSERT_EQ(stat((path_ + ".lock").c_str(), &after), 0);
    EXPECT_EQ(after.st_mode, S_IFREG | 0600u);
}

TEST_F(source_KeySetFile, FingerprintIsSha256) {
    EXPECT_EQ(fingerprint("abc")[0], 0xBA);
    EXPECT_EQ(fingerprint("abc")[31], 0xAD);
}

TEST_F(source_KeySetFile, AnEditThatChangesNothingOrFailsLeavesTheFileAlone) {
    struct stat before {};
    ASSERT_EQ(stat(path_.c_str(), &before), 0);
    EXPECT_FALSE(rewrite_file(path_, to("old\n")).value().written);
    EXPECT_EQ(rewrite_file(path_, [](std::string_view) -> Result<std::string> { return fail("no"); })
                  .error()
                  .message,
              "no");
    struct stat after {};
    ASSERT_EQ(stat(path_.c_str(), &after), 0);
    EXPECT_EQ(after.st_ino, before.st_ino);
    EXPECT_EQ(names(), kClean);
}

TEST_F(source_KeySetFile, WhatFollowsAChangeHappensUnderItsLock) {
    int calls = 0;
    RewriteOptions options;
    options.then_locked = [&](const Rewrite& rewrite) {
        ++calls;
        EXPECT_EQ(get(path_), "new\n");
        EXPECT_EQ(rewrite.after, fingerprint("new\n"));
        EXPECT_EQ(rewrite.written, calls == 1);
        RewriteOptions impatient;
        impatient.lock_wait_ms_max = 0;
        EXPECT_FALSE(rewrite_file(path_, to("other\n"), impatient)) << "the lock was given back";
    };
    EXPECT_TRUE(rewrite_file(path_, to("new\n"), options));
    EXPECT_TRUE(rewrite_file(path_, to("new\n"), options));
    EXPECT_EQ(calls, 2);
    const auto refused = [](std::string_view) -> Result<std::string> { return fail("no"); };
    EXPECT_FALSE(rewrite_file(path_, refused, options));
    EXPECT_EQ(calls, 2);
}

TEST_F(source_KeySetFile, ASymbolicLinkStaysAndItsTargetIsReplaced) {
    std::filesystem::create_directory(directory_ + "/d");
    std::filesystem::rename(path_, directory_ + "/d/real.yaml");
    std::filesystem::create_symlink("d/real.yaml", path_);
    ASSERT_TRUE(rewrite_file(path_, to("new\n")));
    EXPECT_TRUE(std::filesystem::is_symlink(path_));
    EXPECT_EQ(get(directory_ + "/d/real.yaml"), "new\n");
    EXPECT_TRUE(std::filesystem::exists(directory_ + "/d/real.yaml.lock"));
    std::filesystem::remove(directory_ + "/d/real.yaml");
    EXPECT_EQ(rewrite_file(path_, to("x")).error().message,
              path_ + ": a symbolic link to nowhere (create its target, or name the file itself)");
}

TEST_F(source_KeySetFile, MissingFileIsAnErrorUnlessThereIsATextToStartFrom) {
    const std::string path = directory_ + "/new.yaml";
    EXPECT_EQ(rewrite_file(path, to("x")).error().message, path + ": cannot open: No such file or directory");
    RewriteOptions options;
    options.initial_text = KeySetText::empty_text();
    const auto done = rewrite_file(
        path, [](std::string_view old) -> Result<std::string> { return std::string(old) + "# x\n"; },
        options);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(get(path), "version: 1\nkeys: []\n# x\n");
    struct stat st {};
    ASSERT_EQ(stat(path.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode, S_IFREG | 0600u);
    const std::string nowhere = directory_ + "/none/k.yaml";
    EXPECT_EQ(rewrite_file(nowhere, to("x")).error().message,
              nowhere + ".lock: cannot open the lock file: No such file or directory");
}

TEST_F(source_KeySetFile, StaleTemporaryFilesAreRemovedAndOthersKept) {
    put(directory_ + "/.keys.yaml.apikey-tmp.0123456789abcdef", "half");
    put(directory_ + "/.other.yaml.apikey-tmp.0123456789abcdef", "half");
    ASSERT_TRUE(rewrite_file(path_, to("new\n")));
    EXPECT_EQ(names(), (std::set<std::string>{".other.yaml.apikey-tmp.0123456789abcdef", "keys.yaml",
                                              "keys.yaml.lock"}));
}

TEST_F(source_KeySetFile, ALockHeldTooLongNamesItsHolder) {
    RewriteOptions options;
    options.lock_wait_ms_max = 20;
    std::string message;
    const auto outer = rewrite_file(path_, [&](std::string_view) -> Result<std::string> {
        const auto inner = rewrite_file(path_, to("inner\n"), options);
        message = inner ? "no error" : inner.error().message;
        return std::string("outer\n");
    });
    ASSERT_TRUE(outer);
    EXPECT_EQ(message, path_ + ".lock: still locked by process " + std::to_string(getpid()) +
                           " after 20 ms (wait for it to end, then try again)");
    EXPECT_EQ(get(path_), "outer\n");
}

TEST_F(source_KeySetFile, AChangeByAnEditorMeanwhileIsNotOverwritten) {
    const auto done = rewrite_file(path_, [&](std::string_view) -> Result<std::string> {
        put(path_, "by hand\n");
        return std::string("new\n");
    });
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().message,
              path_ + ": changed by someone else while it was being edited (try again)");
    EXPECT_EQ(get(path_), "by hand\n");
    EXPECT_EQ(names(), kClean);
}

TEST_F(source_KeySetFile, LockFileIsNoLinkAndNoPipe) {
    std::filesystem::create_symlink("elsewhere", path_ + ".lock");
    EXPECT_EQ(rewrite_file(path_, to("x")).error().message,
              path_ + ".lock: cannot open the lock file: Too many levels of symbolic links");
    EXPECT_FALSE(std::filesystem::exists(directory_ + "/elsewhere"));
    std::filesystem::remove(path_ + ".lock");
    ASSERT_EQ(mkfifo((path_ + ".lock").c_str(), 0600), 0);
    EXPECT_EQ(rewrite_file(path_, to("x")).error().message,
              path_ + ".lock: no regular file (remove it; it is made anew)");
    EXPECT_EQ(get(path_), "old\n");
}

Result<std::string> add_key(std::string_view old, unsigned n) {
    auto set = KeySetText::parse(std::string(old), "keys.yaml");
    if (!set) {
        return tl::unexpected(set.error());
    }
    KeyRow row;
    char id[13];
    std::snprintf(id, sizeof id, "key%09u", n);
    row.id = id;
    row.digest[0] = static_cast<uint8_t>(n);
    row.digest[1] = static_cast<uint8_t>(n >> 8);
    row.environment = "live";
    if (auto done = set->upsert(row); !done) {
        return tl::unexpected(done.error());
    }
    return set->text();
}

int wait_for(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        EXPECT_EQ(errno, EINTR);
    }
    return status;
}

TEST_F(source_KeySetFile, ConcurrentRewritesLoseNothing) {
    constexpr unsigned kProcesses = 3;
    constexpr unsigned kRewrites = 40;
    put(path_, KeySetText::empty_text());
    std::vector<pid_t> children;
    for (unsigned p = 0; p < kProcesses; ++p) {
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            RewriteOptions options;
            options.lock_wait_ms_max = 120'000;
            for (unsigned i = 0; i < kRewrites; ++i) {
                const unsigned n = p * kRewrites + i;
                if (!rewrite_file(
                        path_, [n](std::string_view old) { return add_key(old, n); }, options)) {
                    _exit(1);
                }
            }
            _exit(0);
        }
        children.push_back(child);
    }
    for (const pid_t child : children) {
        EXPECT_EQ(wait_for(child), 0);
    }
    EXPECT_EQ(KeySetText::parse(get(path_), "keys.yaml").value().size(), kProcesses * kRewrites);
    EXPECT_EQ(names(), kClean);
}

TEST_F(source_KeySetFile, AKilledRewriteLeavesTheOldTextOrTheNew) {
    const std::string a = "a" + std::string(300'000, 'a') + "\n";
    const std::string b = "b" + std::string(200'000, 'b') + "\n";
    put(path_, a);
    for (unsigned round = 0; round < 40; ++round) {
        int ready[2];
        ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            for (bool first = true;; first = false) {
                const auto done = rewrite_file(
                    path_, [&](std::string_view old) -> Result<std::string> { return old == a ? b : a; });
                if (!done || (first && write(ready[1], "x", 1) != 1)) {
                    _exit(1);
                }
            }
        }
        close(ready[1]);
        char byte = 0;
        ASSERT_EQ(read(ready[0], &byte, 1), 1);  // it is at work
        close(ready[0]);
        const timespec pause{0, static_cast<long>(round) * 137'000};
        nanosleep(&pause, nullptr);
        ASSERT_EQ(kill(child, SIGKILL), 0);
        const int status = wait_for(child);
        ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        const std::string text = get(path_);
        ASSERT_TRUE(text == a || text == b) << text.size();
    }
    ASSERT_TRUE(rewrite_file(path_, to("end\n")));
    EXPECT_EQ(names(), kClean);
}

// In a user and mount namespace of its own, so that nothing is left mounted; 0 when all went as it should.
int fill_small_disk(const std::string& directory) {
    if (unshare(CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) != 0 ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", directory.c_str(), "tmpfs", 0, "size=1m") != 0) {
        std::perror("cannot make a small file system");
        return 2;
    }
    const std::string path = directory + "/keys.yaml";
    std::ofstream(path) << "old\n";
    const auto done = rewrite_file(path, to(std::string(2'000'000, 'x')));
    std::ifstream in(path);
    std::string line;
    const bool kept = std::getline(in, line) && line == "old";
    const bool told =
        !done && done.error().message == path + ": cannot write the new text: No space left on device";
    size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        files += entry.is_regular_file() ? 1 : 0;
    }
    const bool again = rewrite_file(path, to("new\n")).has_value();
    return kept && told && files == 2 && again ? 0 : 1;
}

TEST_F(source_KeySetFile, AFullDiskLeavesTheOldText) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        _exit(fill_small_disk(directory_));
    }
    EXPECT_EQ(wait_for(child), 0);
}

}  // namespace
}  // namespace apikeyd
