// Promise 6: bad input gets one clear error that names the place, and what was serving goes on serving.

#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "apikey/apikey.h"
#include "base/hex.h"
#include "shm/sha256.h"
#include "support/child.h"
#include "support/daemon_process.h"
#include "support/no_descriptors.h"

namespace {

using apikey::test::NoDescriptors;
using apikeyd::test::DaemonProcess;

constexpr uid_t kNobody = 65534;
constexpr char kGoodKey[] = "ak_live_GoodKey00001_abcdefghijklmnopqrstuvwxyz0000000";

std::string hex_digest(const std::string& text) {
    uint8_t digest[32];
    apikey::shm::sha256_kernel().hash(text.data(), text.size(), digest);
    return apikeyd::to_hex(digest);
}

std::string row(const std::string& id, const std::string& sha256, const std::string& more = "") {
    return "  - id: " + id + "\n    sha256: " + sha256 + "\n    environment: live\n" + more;
}

std::string good_set() {
    return "keys:\n" + row("GoodKey00001", hex_digest(kGoodKey));
}

/// A directory with configuration and key set, removed at the end.
class BadInput : public testing::Test {
  protected:
    BadInput() {
        char name[] = "/dev/shm/apikeyd-bad-XXXXXX";
        directory_ = mkdtemp(name);
        write("keys.yaml", good_set());
        configure("");
    }
    ~BadInput() override { std::filesystem::remove_all(directory_); }

    std::string path(const std::string& name) const { return directory_ + "/" + name; }
    void write(const std::string& name, const std::string& text) const {
        std::ofstream(path(name) + ".new", std::ios::binary) << text;
        std::filesystem::rename(path(name) + ".new", path(name));
    }
    void configure(const std::string& more) const {
        write("apikeyd.yaml",
              "source: yaml:keys.yaml\nusage: sqlite:usage.db\n" +
                  (more.find("directory:") == std::string::npos ? "directory: " + path("run") + "\n"
                                                                : std::string()) +
                  more);
    }
    /// What a member of the clients' group may do to every generation's counters.
    void scribble_cells() const {
        for (const auto& entry : std::filesystem::directory_iterator(path("run/default"))) {
            if (entry.path().filename().string().starts_with("cells.")) {
                std::fstream(entry.path(), std::ios::in | std::ios::out | std::ios::binary)
                    .write("\0\0\0\0\0\0\0\0", 8);
            }
        }
    }
    apikey_code validate(const std::string& key) const { return verdict_of(key).code; }
    apikey_verdict verdict_of(const std::string& key) const {
        apikey_options options{};
        options.size = sizeof options;
        const std::string run = path("run");
        options.directory = run.c_str();
        apikey_client* client = nullptr;
        apikey_open(&options, &client);
        apikey_verdict verdict;
        apikey_validate(client, key.data(), key.size(), &verdict);
        apikey_close(client);
        return verdict;
    }
    std::string said(const DaemonProcess& daemon) const {
        std::ifstream in(daemon.stderr_path());
        return {std::istreambuf_iterator<char>(in), {}};
    }

    std::string directory_;
};

/// A key set that must be refused, and what the refusal must name.
struct BadSet {
    const char* name;
    std::function<std::string()> text;
    const char* place;
    const char* says;
};

std::string alias_bomb() {
    std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 9; ++i) {
        text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
        for (int k = 0; k < 9; ++k) {
            text += (k != 0 ? ", *a" : "*a") + std::to_string(i - 1);
        }
        text += "]\n";
    }
    return text + "keys: *a8\n";
}

const BadSet kBadSets[] = {
    {"truncated", [] { return good_set() + "  - id: \"Trunc"; }, "keys.yaml:5", ""},
    {"duplicate id", [] { return good_set() + row("GoodKey00001", std::string(64, 'a')); }, "keys.yaml:5",
     "GoodKey00001"},
    {"duplicate digest", [] { return good_set() + row("OtherKey0001", hex_digest(kGoodKey)); }, "keys.yaml:6",
     "same digest as in line 3"},
    {"bad date",
     [] { return good_set() + row("OtherKey0001", std::string(64, 'a'), "    expires: 2027-13-01\n"); },
     "keys.yaml:8:14", "2027-13-01"},
    {"unknown field",
     [] { return good_set() + row("OtherKey0001", std::string(64, 'a'), "    colour: red\n"); },
     "keys.yaml:8", "colour"},
    {"alias bomb", alias_bomb, "keys.yaml:1", "anchor"},
    {"line of 100 MB", [] { return good_set() + "  - id: " + std::string(100 << 20, 'x') + "\n"; },
     "keys.yaml:5", "line"},
    {"wrong type", [] { return good_set() + row("OtherKey0001", "[1, 2]"); }, "keys.yaml:6", "sha256"},
    {"invalid UTF-8",
     [] { return good_set() + row("OtherKey0001", std::string(64, 'a'), "    name: \xff\xfe\n"); },
     "keys.yaml:8", "UTF-8"},
    {"empty", [] { return std::string(); }, "keys.yaml", "empty"},
    {"deeply nested", [] { return "keys: " + std::string(1000, '[') + "\n"; }, "keys.yaml:1", "deep"},
};

TEST_F(BadInput, EveryBadKeySetIsRefusedByNameAndTheOldOneGoesOnServing) {
    DaemonProcess daemon(path("apikeyd.yaml"));
    daemon.start();
    daemon.wait_ready();
    ASSERT_EQ(validate(kGoodKey), APIKEY_VALID);
    for (const BadSet& bad : kBadSets) {
        SCOPED_TRACE(bad.name);
        write("keys.yaml", bad.text());
        const std::string answer = daemon.request(R"({"verb":"reload","force":true})");
        EXPECT_NE(answer.find("\"ok\":false"), std::string::npos) << answer.substr(0, 300);
        EXPECT_NE(answer.find(bad.place), std::string::npos) << answer.substr(0, 300);
        EXPECT_NE(answer.find(bad.says), std::string::npos) << answer.substr(0, 300);
        EXPECT_LT(answer.size(), 8192u) << "an error is a line, not a dump";
        EXPECT_EQ(validate(kGoodKey), APIKEY_VALID);
    }
    write("keys.yaml", good_set());
    EXPECT_NE(daemon.request(R"({"verb":"reload","force":true})").find("\"ok\":true"), std::string::npos);
    EXPECT_EQ(daemon.terminate(), 0);
    EXPECT_EQ(validate(kGoodKey), APIKEY_VALID) << "a stopped daemon leaves the table serving";
}

TEST_F(BadInput, ARefusedReloadIsNotTakenForTheContentInForce) {
    DaemonProcess daemon(path("apikeyd.yaml"));
    daemon.start();
    daemon.wait_ready();
    std::string many = "keys:\n";
    for (int i = 0; i < 16; ++i) {
        const std::string number = std::to_string(100 + i);
        many.append("  - {id: EnvKeys00").append(number).append(", sha256: ").append(hex_digest(number));
        many.append(", environment: e").append(number).append("}\n");
    }
    write("keys.yaml", many);
    const std::string refused = daemon.request(R"({"verb":"reload","force":true})");
    EXPECT_NE(refused.find("keys.yaml:17:"), std::string::npos) << refused;
    EXPECT_NE(refused.find("environment too many"), std::string::npos) << refused;
    const std::string again = daemon.request(R"({"verb":"reload","force":false})");
    EXPECT_NE(again.find("environment too many"), std::string::npos) << again;
    EXPECT_EQ(validate(kGoodKey), APIKEY_VALID);
    daemon.terminate();
}

// Whoever may count may also truncate the counters: the daemon survives it, again and again.
TEST_F(BadInput, AClientThatTruncatesTheCellsDoesNotKillTheDaemon) {
    configure("flush_interval_ms: 20\n");
    DaemonProcess daemon(path("apikeyd.yaml"));
    daemon.start();
    daemon.wait_ready();
    for (const auto& entry : std::filesystem::directory_iterator(path("run/default"))) {
        if (entry.path().filename().string().starts_with("cells.")) {
            std::filesystem::resize_file(entry.path(), 0);
        }
    }
    for (int i = 0; i < 5; ++i) {  // each answer comes after a sweep
        EXPECT_NE(daemon.request(R"({"verb":"flush"})").find("\"ok\""), std::string::npos);
    }
    EXPECT_EQ(daemon.terminate(), 0);
}

// Scribbled cells must not keep a revocation out of the table that clients still read.
TEST_F(BadInput, ARevocationReachesATableWhoseCellsWereScribbled) {
    DaemonProcess daemon(path("apikeyd.yaml"));
    daemon.start();
    daemon.wait_ready();
    apikey_options options{};
    options.size = sizeof options;
    const std::string run = path("run");
    options.directory = run.c_str();
    apikey_client* client = nullptr;
    ASSERT_EQ(apikey_open(&options, &client), APIKEY_OK);
    daemon.kill9();
    scribble_cells();
    write("keys.yaml", good_set() + "    state: revoked\n");
    daemon.start();
    daemon.wait_ready();
    apikey_verdict verdict;
    {
        const NoDescriptors none;  // so that the client stays where it is
        EXPECT_EQ(apikey_validate(client, kGoodKey, strlen(kGoodKey), &verdict), APIKEY_REVOKED);
    }
    apikey_close(client);
    // Nor may it hide the table from the guards that hold an old copy of the source back.
    EXPECT_EQ(daemon.terminate(), 0);
    scribble_cells();
    write("keys.yaml", good_set());
    daemon.start();
    daemon.wait_ready();
    EXPECT_NE(daemon.request(R"({"verb":"status"})").find("would bring back"), std::string::npos);
    // A generation with fresh cells is built at once, so that servers can attach.
    apikey_verdict now = verdict_of(kGoodKey);
    for (int i = 0; i < 3000 && now.code == APIKEY_UNAVAILABLE; ++i) {
        usleep(10000);
        now = verdict_of(kGoodKey);
    }
    EXPECT_EQ(now.code, APIKEY_REVOKED);
    EXPECT_EQ(now.flags, 0u) << "and it is counted";
    daemon.terminate();
}

// A change must not be published as the whole truth while the source could not be read.
TEST_F(BadInput, AChangeBeforeTheFirstLoadPublishesNothing) {
    write("keys.yaml", "");
    DaemonProcess daemon(path("apikeyd.yaml"));
    daemon.start();
    daemon.wait_ready();
    const std::string zeros(64, '0');
    const std::string answer =
        daemon.request(R"({"verb":"apply","before":")" + zeros + R"(","after":")" + zeros +
                       R"(","changes":[{"op":"upsert","row":{"id":"OtherKey0001","sha256":")" + zeros +
                       R"(","state":"active"}}]})");
    EXPECT_NE(answer.find("the source has not been loaded yet"), std::string::npos) << answer;
    EXPECT_EQ(validate(kGoodKey), APIKEY_UNAVAILABLE);
    daemon.terminate();
}

TEST_F(BadInput, ASetThatLosesMostKeysNeedsForce) {
    std::string many = good_set();
    for (int i = 0; i < 20; ++i) {
        const std::string number = std::to_string(100 + i);
        many += row("ManyKeys0" + number, hex_digest(number));
    }
    write("keys.yaml", many);
    DaemonProcess daemon(path("apikeyd.yaml"));
    daemon.start();
    daemon.wait_ready();
    write("keys.yaml", "keys: []\n");
    const std::string refused = daemon.request(R"({"verb":"reload","force":false})");
    EXPECT_NE(refused.find("would remove 21 of 21 keys"), std::string::npos) << refused;
    EXPECT_EQ(validate(kGoodKey), APIKEY_VALID);
    const std::string forced = daemon.request(R"({"verb":"reload","force":true})");
    EXPECT_NE(forced.find("\"removed\":21"), std::string::npos) << forced;
    EXPECT_EQ(validate(kGoodKey), APIKEY_MALFORMED);  // its checksum is made up: a miss is named by it
    daemon.terminate();
}

// A restored older file, say. What a revocation promised outlives the file that recorded it.
TEST_F(BadInput, ASetThatBringsARevokedKeyBackNeedsForce) {
    write("keys.yaml", good_set() + "    state: revoked\n");
    DaemonProcess daemon(path("apikeyd.yaml"));
    daemon.start();
    daemon.wait_ready();
    ASSERT_EQ(validate(kGoodKey), APIKEY_REVOKED);
    const std::string reload = R"({"verb":"reload","force":false})";
    for (const char* state : {"active", "disabled"}) {
        write("keys.yaml", good_set() + "    state: " + state + "\n");
        const std::string refused = daemon.request(reload);
        EXPECT_NE(refused.find("would bring back 1 revoked keys, the first GoodKey00001"), std::string::npos)
            << refused;
        EXPECT_EQ(validate(kGoodKey), APIKEY_REVOKED);
    }
    // In another form, or under another id, it is the same key.
    const std::string digest = hex_digest(kGoodKey);
    for (const std::string& same : {"keys:\n" + row("GoodKey00001", digest, "    foreign: true\n"),
                                    "keys:\n" + row("OtherKey0001", digest),
                                    "keys:\n" + row("OtherKey0001", digest, "    foreign: true\n")}) {
        write("keys.yaml", same);
        const std::string refused = daemon.request(reload);
        EXPECT_NE(refused.find("would bring back 1 revoked keys"), std::string::npos) << refused;
        EXPECT_EQ(validate(kGoodKey), APIKEY_REVOKED);
    }
    write("keys.yaml", good_set());
    daemon.kill9();  // the next daemon adopts the table, and refuses the set against it
    daemon.start();
    daemon.wait_ready();
    EXPECT_EQ(validate(kGoodKey), APIKEY_REVOKED);
    write("keys.yaml", good_set());
    const std::string forced = daemon.request(R"({"verb":"reload","force":true})");
    EXPECT_NE(forced.find("\"updated\":1"), std::string::npos) << forced;
    EXPECT_EQ(validate(kGoodKey), APIKEY_VALID);
    daemon.terminate();
}

TEST_F(BadInput, ADaemonWithMoreCapacityMakesRoomInWhatItAdopts) {
    const auto slots = [](const std::string& status) {
        return std::stoul(status.substr(status.find("\"slots\":") + 8));
    };
    DaemonProcess daemon(path("apikeyd.yaml"));
    daemon.start();
    daemon.wait_ready();
    EXPECT_LT(slots(daemon.request(R"({"verb":"status"})")), 50000u);
    EXPECT_EQ(daemon.terminate(), 0);
    configure("capacity: 50000\n");
    daemon.start();
    daemon.wait_ready();
    size_t now = 0;
    for (int i = 0; i < 3000 && now < 50000; ++i) {
        now = slots(daemon.request(R"({"verb":"status"})"));
        usleep(10000);
    }
    EXPECT_GE(now, 50000u);
    EXPECT_EQ(validate(kGoodKey), APIKEY_VALID);
    daemon.terminate();
}

// Whoever is attached to files that were removed must not be left behind by the daemon that is started next.
TEST_F(BadInput, ARevocationAfterTheDirectoryWasReplacedReachesWhoWasAttachedBefore) {
    for (const bool moved : {false, true}) {
        SCOPED_TRACE(moved ? "moved" : "removed");
        write("keys.yaml", good_set());
        DaemonProcess daemon(path("apikeyd.yaml"));
        daemon.start();
        daemon.wait_ready();
        apikey_options options{};
        options.size = sizeof options;
        const std::string run = path("run");
        options.directory = run.c_str();
        apikey_client* client = nullptr;
        ASSERT_EQ(apikey_open(&options, &client), APIKEY_OK);
        apikey_verdict verdict;
        ASSERT_EQ(apikey_validate(client, kGoodKey, strlen(kGoodKey), &verdict), APIKEY_VALID);
        apikey_refresh(client);  // a host with housekeeping, whose requests leave switches to it
        if (moved) {
            std::filesystem::rename(path("run/default"), path("elsewhere"));
        } else {
            std::filesystem::remove_all(path("run/default"));
        }
        EXPECT_EQ(daemon.wait(), 1) << "it ends by itself";
        EXPECT_NE(said(daemon).find("removed or replaced"), std::string::npos) << said(daemon);
        {
            const NoDescriptors none;
            apikey_validate(client, kGoodKey, strlen(kGoodKey), &verdict);
            EXPECT_EQ(verdict.flags & APIKEY_FLAG_STALE, APIKEY_FLAG_STALE) << "nobody keeps what it reads";
        }
        usleep(300000);  // the pause after an attempt to attach that failed
        write("keys.yaml", good_set() + "    state: revoked\n");
        daemon.start();
        daemon.wait_ready();
        EXPECT_EQ(apikey_validate(client, kGoodKey, strlen(kGoodKey), &verdict), APIKEY_REVOKED);
        EXPECT_EQ(verdict.flags & APIKEY_FLAG_STALE, 0u);
        apikey_close(client);
        daemon.terminate();
        std::filesystem::remove_all(path("run"));
        std::filesystem::remove_all(path("elsewhere"));
    }
}

TEST_F(BadInput, BadRequestsOnTheAdminSocketAreAnsweredAndHarmNothing) {
    DaemonProcess daemon(path("apikeyd.yaml"));
    daemon.start();
    daemon.wait_ready();
    for (const char* line :
         {"", "{", "[]", "null", "{\"verb\":1}", "{\"verb\":\"dance\"}", "{\"verb\":\"apply\"}",
          R"({"verb":"apply","before":"zz","after":"zz","changes":[]})",
          R"({"verb":"apply","before":"","after":"","changes":[{"op":"upsert","row":{"id":"x"}}]})"}) {
        const std::string answer = daemon.request(line);
        EXPECT_NE(answer.find("\"ok\":false"), std::string::npos) << line << " -> " << answer;
    }
    const std::string apply = R"({"verb":"apply","before":")" + std::string(64, '0') + R"(","after":")" +
                              std::string(64, '0') + "\",";
    for (
        const char* rest :
        {R"("changes":[],"policies":{}})", R"("changes":[],"policies":[1]})",
         R"("changes":[],"policies":[{"op":"upsert"}]})",
         R"("changes":[],"policies":[{"op":"drop","scope":"a"}]})",
         R"("changes":[],"policies":[{"op":"upsert","scope":"a.*"}]})",
         R"("changes":[],"policies":[{"op":"upsert","scope":"A"}]})",
         R"("changes":[],"policies":[{"op":"upsert","plan":{"name":"P","limits":[]}}]})",
         R"("changes":[],"policies":[{"op":"upsert","plan":{"name":"p","limits":{}}}]})",
         R"("changes":[],"policies":[{"op":"upsert","plan":{"name":"p","limits":[{"name":"a","rate":"0/s"}]}}]})",
         R"("changes":[],"policies":[{"op":"upsert","plan":{"name":"p","limits":[{"name":"a","quota":"1/day"},{"name":"a","quota":"1/day"}]}}]})",
         R"("changes":[],"policies":[{"op":"upsert","owner":{"name":""}}]})",
         R"("changes":[],"policies":[{"op":"upsert","owner":{"name":"a","plan":"P!"}}]})"}) {
        const std::string answer = daemon.request(apply + rest);
        EXPECT_EQ(answer.find(R"({"ok":false,"error":"policies)"), 0u) << rest << " -> " << answer;
    }
    EXPECT_EQ(validate(kGoodKey), APIKEY_VALID);
    daemon.terminate();
}

TEST_F(BadInput, AConfigurationErrorEndsTheStartWithThePlace) {
    const std::pair<const char*, const char*> errors[] = {
        {"colour: red\n", "apikeyd.yaml:4:1"},
        {"flush_interval_ms: never\n", "flush_interval_ms"},
        {"clients_group: no-such-group-here\n",
         "apikeyd.yaml:4:16: clients_group: group 'no-such-group-here' does not exist"},
        {"event_loop: magic\n", "event_loop"},
    };
    for (const auto& [text, place] : errors) {
        SCOPED_TRACE(text);
        configure(text);
        std::filesystem::remove(path("apikeyd.yaml.stderr"));
        DaemonProcess daemon(path("apikeyd.yaml"));
        daemon.start();
        EXPECT_EQ(daemon.wait(), 1);
        EXPECT_NE(said(daemon).find(place), std::string::npos) << said(daemon);
    }
}

/// What `apikeyd --check` prints, both streams, and its exit status.
std::pair<int, std::string> check(const std::string& config) {
    const std::string command = std::string(getenv("APIKEYD")) + " --check --config " + config + " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    std::string said;
    for (int c = fgetc(pipe); c != EOF; c = fgetc(pipe)) {
        said.push_back(static_cast<char>(c));
    }
    return {WEXITSTATUS(pclose(pipe)), said};
}

TEST_F(BadInput, ACheckTellsWhatAStartWouldStumbleOver) {
    configure("");
    const auto [status, text] = check(path("apikeyd.yaml"));
    EXPECT_EQ(status, 0) << text;
    EXPECT_NE(text.find("keys.yaml: ok, 1 keys\n"), std::string::npos) << text;
    EXPECT_FALSE(std::filesystem::exists(path("run"))) << "a check makes nothing";
    EXPECT_FALSE(std::filesystem::exists(path("usage.db")));

    write("no-store",
          "this is no SQLite database, and long enough to have had a header: 0123456789012345678901");
    write("apikeyd.yaml",
          "source: yaml:keys.yaml\nusage: sqlite:no-store\ndirectory: nowhere/run/x\n"
          "log:\n  file: nowhere/log\nclients_group: no-such-clients\n"
          "operators_group: no-such-operators\naudit_log: {file: nowhere/audit}\n");
    const auto [bad_status, bad_text] = check(path("apikeyd.yaml"));
    EXPECT_EQ(bad_status, 1);
    for (const char* line : {"apikeyd.yaml:2:8: usage: ", "apikeyd.yaml:3:12: directory: ",
                             "apikeyd.yaml:5:9: log.file: ", "apikeyd.yaml:8:19: audit_log.file: ",
                             "apikeyd.yaml:6:16: clients_group: group 'no-such-clients' does not exist",
                             "apikeyd.yaml:7:18: operators_group: group 'no-such-operators' does not exist",
                             "keys.yaml: ok, 1 keys"}) {
        EXPECT_NE(bad_text.find(line), std::string::npos) << line << "\n" << bad_text;
    }
    EXPECT_EQ(bad_text.find("apikeyd.yaml: ok"), std::string::npos) << bad_text;
    configure("");
    write("keys.yaml", "keys: 1\n");
    EXPECT_EQ(check(path("apikeyd.yaml")).first, 1);
}

TEST_F(BadInput, ASecondDaemonIsRefusedAndTheFirstGoesOn) {
    DaemonProcess first(path("apikeyd.yaml"));
    first.start();
    first.wait_ready();
    DaemonProcess second(path("apikeyd.yaml"));
    second.start();
    EXPECT_EQ(second.wait(), 1);
    EXPECT_NE(said(second).find("serves this instance"), std::string::npos) << said(second);
    EXPECT_EQ(validate(kGoodKey), APIKEY_VALID);
    EXPECT_EQ(first.terminate(), 0);
}

/// Starts the daemon in a forked child after `prepare`, and tells how it ended and what it said.
class Start {
  public:
    Start(const std::string& config, const std::function<bool()>& prepare) {
        std::filesystem::remove(config + ".stderr");
        status_ = apikey::test::in_child([&] {
            if (!prepare()) {
                return 98;
            }
            DaemonProcess daemon(config);
            daemon.start();
            return daemon.wait();
        });
        std::ifstream in(config + ".stderr");
        said_.assign(std::istreambuf_iterator<char>(in), {});
    }
    int status() const { return status_; }
    const std::string& said() const { return said_; }

  private:
    int status_;
    std::string said_;
};

bool become_nobody() {
    return setgroups(0, nullptr) == 0 && setgid(kNobody) == 0 && setuid(kNobody) == 0;
}

TEST_F(BadInput, AnUnprivilegedDaemonSaysWhatItsDirectoryLacks) {
    ASSERT_EQ(geteuid(), 0u) << "this test changes users: run it as root";
    std::filesystem::permissions(directory_, std::filesystem::perms::all);
    {
        mkdir(path("readonly").c_str(), 0555);
        configure("directory: " + path("readonly") + "/run\n");
        const Start start(path("apikeyd.yaml"), become_nobody);
        EXPECT_EQ(start.status(), 1);
        EXPECT_NE(start.said().find("cannot create the directory: Permission denied"), std::string::npos)
            << start.said();
    }
    {
        mkdir(path("foreign").c_str(), 0755);
        mkdir(path("foreign/default").c_str(), 0755);
        configure("directory: " + path("foreign") + "\n");
        const Start start(path("apikeyd.yaml"), become_nobody);
        EXPECT_EQ(start.status(), 1);
        EXPECT_NE(start.said().find("owned by uid 0"), std::string::npos) << start.said();
    }
}

TEST_F(BadInput, ATmpfsThatIsTooSmallIsToldWithTheMissingBytes) {
    ASSERT_EQ(geteuid(), 0u) << "this test mounts: run it as root";
    mkdir(path("small").c_str(), 0755);
    configure("capacity: 1000000\ndirectory: " + path("small") + "\n");
    const int status = apikey::test::in_child([&] {
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            mount("tmpfs", path("small").c_str(), "tmpfs", 0, "size=1m,mode=0755") != 0) {
            return 98;
        }
        // The daemon stays, and tries again when its source changes or it is told to.
        DaemonProcess daemon(path("apikeyd.yaml"));
        daemon.start();
        daemon.wait_ready();
        const std::string answer = daemon.request(R"({"verb":"reload","force":true})");
        const bool told = answer.find("are missing") != std::string::npos;
        bool left = false;
        for (const auto& entry : std::filesystem::directory_iterator(path("small") + "/default")) {
            left = left || entry.path().filename().string().starts_with("build.");
        }
        daemon.terminate();
        return told ? (left ? 96 : 0) : 97;
    });
    EXPECT_EQ(status, 0) << "98: no mount, 97: not told, 96: a half-built file was left";
}

TEST_F(BadInput, AReloadWhoseNewKeysHaveNoRoomPutsNoneInForce) {
    ASSERT_EQ(geteuid(), 0u) << "this test mounts: run it as root";
    mkdir(path("small").c_str(), 0755);
    configure("directory: " + path("small") + "\n");
    const auto key_set = [](unsigned keys) {
        std::string text = "keys:\n";
        for (unsigned i = 0; i < keys; ++i) {
            const std::string number = std::to_string(10000 + i);
            text += row("RoomKey" + number, hex_digest(number));
        }
        return text;
    };
    write("keys.yaml", key_set(100));
    const int status = apikey::test::in_child([&] {
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            mount("tmpfs", path("small").c_str(), "tmpfs", 0, "size=400k,mode=0755") != 0) {
            return 98;
        }
        DaemonProcess daemon(path("apikeyd.yaml"));
        daemon.start();
        daemon.wait_ready();
        write("keys.yaml", key_set(5000));
        const bool refused = daemon.request(R"({"verb":"reload","force":false})").find("not enough memory") !=
                             std::string::npos;
        const bool untouched =
            daemon.request(R"({"verb":"status"})").find("\"keys\":100,") != std::string::npos;
        // What was good before is good again, and not a loss of keys that were never wanted.
        write("keys.yaml", key_set(100));
        const bool back =
            daemon.request(R"({"verb":"reload","force":false})").find("\"ok\":true") != std::string::npos;
        daemon.terminate();
        return !refused ? 97 : !untouched ? 96 : !back ? 95 : 0;
    });
    EXPECT_EQ(status, 0) << "98: no mount, 97: not refused, 96: keys in force, 95: the old set is refused";
}

TEST_F(BadInput, TooFewDescriptorsEndTheStartWithAnError) {
    const Start start(path("apikeyd.yaml"), [] {
        const rlimit few{8, 8};
        return setrlimit(RLIMIT_NOFILE, &few) == 0;
    });
    EXPECT_EQ(start.status(), 1);
    EXPECT_NE(start.said().find("Too many open files"), std::string::npos) << start.said();
}

}  // namespace
