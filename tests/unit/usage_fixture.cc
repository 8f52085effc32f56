#include "usage_fixture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <map>
#include <memory>
#include <stdexcept>

namespace apikeyd::test {

namespace {

sqlite3* last_connection = nullptr;
int write_error = 0;
int points_left = 0;
bool torn = false;

void count_point() {
    if (--points_left == 0) {
        raise(SIGKILL);
    }
}

int on_statement(unsigned, void*, void*, void*) {
    count_point();
    return 0;
}

int hook_statements(sqlite3* connection, char**, const sqlite3_api_routines*) {
    return sqlite3_trace_v2(connection, SQLITE_TRACE_STMT, on_statement, nullptr);
}

int remember_connection(sqlite3* connection, char**, const sqlite3_api_routines*) {
    last_connection = connection;
    return SQLITE_OK;
}

using Extension = int (*)(sqlite3*, char**, const sqlite3_api_routines*);
void (*as_entry(Extension extension))() {
    return reinterpret_cast<void (*)()>(extension);
}

ssize_t hooked_pwrite(int fd, const void* bytes, size_t size, off_t offset) {
    if (write_error != 0) {
        errno = write_error;
        return -1;
    }
    if (torn && points_left == 1) {
        (void)!pwrite(fd, bytes, size / 2, offset);
    }
    count_point();
    return pwrite(fd, bytes, size, offset);
}

ssize_t hooked_write(int fd, const void* bytes, size_t size) {
    count_point();
    return write(fd, bytes, size);
}

int hooked_ftruncate(int fd, off_t size) {
    if (!torn) {
        count_point();
    }
    return ftruncate(fd, size);
}

int hooked_unlink(const char* path) {
    if (!torn) {
        count_point();
    }
    return unlink(path);
}

void* hooked_mmap(void* address, size_t size, int protection, int flags, int fd, off_t offset) {
    if (!torn) {
        count_point();
    }
    return mmap(address, size, protection, flags, fd, offset);
}

template <typename Function>
void replace(const char* name, Function* function) {
    sqlite3_vfs* vfs = sqlite3_vfs_find(nullptr);
    // Which of pwrite and pwrite64 exists depends on how SQLite was built; the tests count what they met.
    vfs->xSetSystemCall(vfs, name, reinterpret_cast<sqlite3_syscall_ptr>(function));
}

void hook_system_calls() {
    replace("pwrite", hooked_pwrite);
    replace("pwrite64", hooked_pwrite);
    replace("write", hooked_write);
    replace("ftruncate", hooked_ftruncate);
    replace("unlink", hooked_unlink);
    replace("mmap", hooked_mmap);
}

void restore_system_calls() {
    sqlite3_vfs* vfs = sqlite3_vfs_find(nullptr);
    vfs->xSetSystemCall(vfs, nullptr, nullptr);
}

int wait_for(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            throw std::runtime_error("waitpid");
        }
    }
    return status;
}

struct Closer {
    void operator()(sqlite3* connection) const { sqlite3_close(connection); }
};
std::unique_ptr<sqlite3, Closer> connect(const std::string& path, int flags = SQLITE_OPEN_READWRITE) {
    sqlite3* raw = nullptr;
    const int rc = sqlite3_open_v2(path.c_str(), &raw, flags, nullptr);
    std::unique_ptr<sqlite3, Closer> connection(raw);
    if (rc != SQLITE_OK) {
        throw std::runtime_error("cannot open " + path);
    }
    return connection;
}

}  // namespace

void UsageTest::SetUp() {
    std::string name = place() + "apikeyd-usage-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
    path_ = name + "/usage.db";
}

void UsageTest::TearDown() {
    std::filesystem::permissions(directory_, std::filesystem::perms::owner_all);
    std::filesystem::remove_all(directory_);
}

UsageStore open_store(const std::string& path) {
    Result<UsageStore> store = UsageStore::open(path);
    if (!store) {
        throw std::runtime_error(store.error().message);
    }
    return std::move(*store);
}

UsageReader open_reader(const std::string& path) {
    Result<UsageReader> reader = UsageReader::open(path);
    if (!reader) {
        throw std::runtime_error(reader.error().message);
    }
    return std::move(*reader);
}

FlushSummary flush_one(UsageStore& store, const Generation& generation, int64_t now_s) {
    const GenerationCounts counts = generation.counts();
    const Result<FlushSummary> summary = store.flush({&counts, 1}, now_s);
    if (!summary) {
        throw std::runtime_error(summary.error().message);
    }
    return *summary;
}

Recorded recorded(const std::string& path) {
    Recorded all;
    UsageReader reader = open_reader(path);
    const Result<void> walked =
        reader.for_each_total([&](const KeyTotal& total) { all.keys.push_back(total); });
    Result<std::vector<CodeCount>> codes = reader.codes();
    if (!walked || !codes) {
        throw std::runtime_error(walked ? codes.error().message : walked.error().message);
    }
    all.codes = std::move(*codes);
    all.quotas =
        query_texts(path,
                    "SELECT iif(typeof(holder) = 'text', holder, lower(hex(holder))) || ' ' || plan || "
                    "'/' || limit_name || ' ' || kind || ' ' || period || ' ' || used FROM quotas "
                    "ORDER BY holder, plan, limit_name, kind");
    return all;
}

bool times_agree(const std::string& path) {
    const Recorded all = recorded(path);
    UsageReader reader = open_reader(path);
    for (const int64_t step_s : kRollupSteps_s) {
        const RollupQuery query{step_s, 0, rollup_start_s(int64_t{1} << 40, 86400)};
        std::map<std::string, KeyRollup> sums;
        std::map<uint8_t, uint64_t> codes;
        const Result<void> walked = reader.for_each_rollup(query, [&](const KeyRollup& one) {
            sums[one.key_id].allowed += one.allowed;
            sums[one.key_id].denied += one.denied;
        });
        const Result<void> codes_walked = reader.for_each_code_rollup(
            query, [&](const CodeRollup& one) { codes[one.count.code] += one.count.total; });
        if (!walked || !codes_walked) {
            throw std::runtime_error((walked ? codes_walked : walked).error().message);
        }
        const bool keys_agree = std::equal(all.keys.begin(), all.keys.end(), sums.begin(), sums.end(),
                                           [](const auto& total, const auto& sum) {
                                               return total.key_id == sum.first &&
                                                      total.allowed == sum.second.allowed &&
                                                      total.denied == sum.second.denied;
                                           });
        const bool codes_agree = std::equal(all.codes.begin(), all.codes.end(), codes.begin(), codes.end(),
                                            [](const CodeCount& total, const auto& sum) {
                                                return total.code == sum.first && total.total == sum.second;
                                            });
        if (!keys_agree || !codes_agree) {
            return false;
        }
    }
    return true;
}

void fold_all(const std::string& path) {
    UsageStore store = open_store(path);
    for (int64_t rows = -1, before = 0; rows != before;) {
        before = rows;
        if (const Result<FlushSummary> flushed = store.flush({}, 0); !flushed) {
            throw std::runtime_error(flushed.error().message);
        }
        rows = query_int(path, "SELECT count(*) FROM recent");
    }
}

void make_version(int version, const std::string& path) {
    fold_all(path);
    execute(path, "DROP TABLE unsent; DROP TABLE sending; DROP TABLE recent; PRAGMA user_version = 3");
    if (version == 1) {
        execute(path,
                "DROP TABLE key_rollups; DROP TABLE code_rollups; DROP TABLE quotas; "
                "PRAGMA user_version = 1");
    }
}

std::vector<std::string> query_texts(const std::string& path, const std::string& sql) {
    const auto connection = connect(path, SQLITE_OPEN_READONLY);  // leaves a crash's log as it is
    sqlite3_stmt* statement = nullptr;
    sqlite3_prepare_v2(connection.get(), sql.c_str(), -1, &statement, nullptr);
    std::vector<std::string> texts;
    while (sqlite3_step(statement) == SQLITE_ROW) {
        texts.emplace_back(reinterpret_cast<const char*>(sqlite3_column_text(statement, 0)));
    }
    if (sqlite3_finalize(statement) != SQLITE_OK) {
        throw std::runtime_error(sql + ": " + sqlite3_errmsg(connection.get()));
    }
    return texts;
}

int64_t query_int(const std::string& path, const std::string& sql) {
    const auto connection = connect(path);
    sqlite3_stmt* statement = nullptr;
    sqlite3_prepare_v2(connection.get(), sql.c_str(), -1, &statement, nullptr);
    const bool found = sqlite3_step(statement) == SQLITE_ROW;
    const int64_t value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    if (!found) {
        throw std::runtime_error(sql + ": " + sqlite3_errmsg(connection.get()));
    }
    return value;
}

void execute(const std::string& path, const std::string& sql) {
    const auto connection = connect(path);
    if (sqlite3_exec(connection.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
        throw std::runtime_error(sql + ": " + sqlite3_errmsg(connection.get()));
    }
}

std::string in_child(const std::function<std::string()>& body) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        throw std::runtime_error("pipe2");
    }
    const pid_t child = fork();
    if (child == 0) {
        std::string text;
        try {
            text = body();
        } catch (const std::exception& error) {
            text = std::string("threw: ") + error.what();
        }
        _exit(write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
    }
    close(ends[1]);
    std::string text;
    char buffer[512];
    for (ssize_t got = 0; (got = read(ends[0], buffer, sizeof(buffer))) != 0;) {
        if (got > 0) {
            text.append(buffer, static_cast<size_t>(got));
        } else if (errno != EINTR) {
            break;
        }
    }
    close(ends[0]);
    const int status = wait_for(child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? text : "the child died; before that: " + text;
}

void drop_privileges() {
    if (geteuid() == 0 &&
        (setresgid(kNobody, kNobody, kNobody) != 0 || setresuid(kNobody, kNobody, kNobody) != 0)) {
        throw std::runtime_error("cannot drop privileges");
    }
}

bool crashes_at(CrashPoint point, int n, const std::function<void()>& body) {
    const pid_t child = fork();
    if (child == 0) {
        points_left = n;
        torn = point == CrashPoint::kTornWrite;
        if (point == CrashPoint::kStatement) {
            sqlite3_auto_extension(as_entry(hook_statements));
        } else {
            hook_system_calls();
        }
        try {
            body();
        } catch (const std::exception&) {
            _exit(1);
        }
        _exit(0);
    }
    const int status = wait_for(child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
        return true;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        throw std::runtime_error("the child failed by itself at point " + std::to_string(n));
    }
    return false;
}

FailingWrites::FailingWrites(int error) {
    write_error = error;
    hook_system_calls();
}

FailingWrites::~FailingWrites() {
    write_error = 0;
    restore_system_calls();
}

ConnectionSpy::ConnectionSpy() {
    sqlite3_auto_extension(as_entry(remember_connection));
}
ConnectionSpy::~ConnectionSpy() {
    sqlite3_cancel_auto_extension(as_entry(remember_connection));
}
sqlite3* ConnectionSpy::last() {
    return last_connection;
}

}  // namespace apikeyd::test
