// The changing side of a run: disables and enables keys through the admin socket, as an operator's tool
// would, but in shared memory only. The source of record is not touched: each change goes with the
// fingerprint in force as both 'before' and 'after'.

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/hex.h"
#include "bench/live_run.h"
#include "bench/tick_clock.h"
#include "protocol/admin_protocol.h"
#include "runtime/unix_client.h"
#include "shm/sha256.h"

namespace apikey::bench {
namespace {

using apikeyd::Change;
using apikeyd::Fingerprint;
using apikeyd::KeyState;
using apikeyd::Result;

constexpr int64_t kRequestTimeout_ms = 10'000;
constexpr uint64_t kRequestsMax_per_s = 100;
constexpr uint64_t kFingerprintAge_ns = 1'000'000'000;  // somebody may change the source meanwhile

Result<std::string> ask(const std::string& socket, const apikeyd::AdminRequest& request) {
    auto answer = apikeyd::request(socket, apikeyd::format_request(request), kRequestTimeout_ms);
    if (!answer) {
        return apikeyd::fail(answer.error().message);
    }
    return std::move(*answer);
}

Result<Fingerprint> fingerprint_in_force(const std::string& socket) {
    const auto line = ask(socket, apikeyd::StatusRequest{});
    if (!line) {
        return tl::unexpected(line.error());
    }
    const auto status = apikeyd::parse_status(*line);
    if (!status) {
        return tl::unexpected(status.error());
    }
    Fingerprint fingerprint{};
    if (status->fingerprint.empty()) {
        return apikeyd::fail(socket + ": the daemon has no source in force yet; try again when it has");
    }
    if (!apikeyd::from_hex(status->fingerprint, fingerprint)) {
        return apikeyd::fail(socket + ": status: fingerprint: not hexadecimal");
    }
    return fingerprint;
}

/// The row of a key that is in the table, from what the library tells of it.
Result<Change> change_of(apikey_client* client, const apikey_key& key, size_t line) {
    apikey_verdict verdict;
    const apikey_code code = apikey_validate(client, key.data, key.len, &verdict);
    std::vector<char> buffer(APIKEY_DESCRIPTION_MAX);
    apikey_description description{};
    description.size = sizeof description;
    if (code != APIKEY_VALID ||
        apikey_describe(client, &verdict, buffer.data(), buffer.size(), &description) != 1) {
        return apikeyd::fail("key file, line " + std::to_string(line) + ": " + apikey_code_name(code) +
                             "; the keys that the writer switches (the file's first) must be valid");
    }
    Change change{Change::Kind::kUpsert, {}};
    change.row.id = description.key_id;
    shm::sha256_kernel().hash(key.data, key.len, change.row.digest.data());
    change.row.foreign = verdict.key_id[0] == '\0';
    change.row.environment = description.environment;
    change.row.owner = description.owner;
    change.row.name = description.name;
    change.row.metadata = description.metadata;
    change.row.created_s = description.created_at;
    if (verdict.expires_at != 0) {
        change.row.expires_s = verdict.expires_at;
    }
    return change;
}

Result<std::vector<Change>> changes_of(const LiveOptions& options, const KeyRing& ring) {
    apikey_client* client = open_client(options);
    if (client == nullptr) {
        return apikeyd::fail("the writer cannot attach");
    }
    std::vector<Change> rows;
    for (size_t i = 0; i < ring.switched; ++i) {
        auto row = change_of(client, ring.known[i], i + 1);
        if (!row) {
            apikey_close(client);
            return tl::unexpected(row.error());
        }
        rows.push_back(std::move(*row));
    }
    apikey_close(client);
    return rows;
}

/// Switches keys in turn, off in one round and on in the next.
class Writer {
  public:
    Writer(std::string socket, std::vector<Change> rows, WriterTally* tally)
        : socket_(std::move(socket)), rows_(std::move(rows)), tally_(tally) {}

    Result<void> run(const SharedArea& area, uint32_t rate_per_s, pid_t parent);
    Result<void> enable_all();

  private:
    Result<void> switch_next(uint64_t count);
    Result<void> apply(std::vector<Change> changes);

    std::string socket_;
    std::vector<Change> rows_;
    WriterTally* tally_;
    size_t next_ = 0;
    Fingerprint in_force_{};
    uint64_t asked_ns_ = 0;
};

Result<void> Writer::apply(std::vector<Change> changes) {
    const uint64_t now_ns = monotonic_ns();
    if (asked_ns_ == 0 || now_ns - asked_ns_ > kFingerprintAge_ns) {
        const auto fingerprint = fingerprint_in_force(socket_);
        if (!fingerprint) {
            return tl::unexpected(fingerprint.error());
        }
        in_force_ = *fingerprint;
        asked_ns_ = now_ns;
    }
    const uint64_t count = changes.size();
    const uint64_t before_ns = monotonic_ns();
    const auto line = ask(socket_, apikeyd::ApplyRequest{in_force_, in_force_, std::move(changes)});
    if (!line) {
        return tl::unexpected(line.error());
    }
    tally_->request_us.add((monotonic_ns() - before_ns) / 1000);
    tally_->changes += count;
    ++tally_->requests;
    return apikeyd::parse_done(*line);
}

Result<void> Writer::switch_next(uint64_t count) {
    std::vector<Change> changes;
    for (uint64_t i = 0; i < count; ++i) {
        Change& row = rows_[next_];
        next_ = (next_ + 1) % rows_.size();
        row.row.state = row.row.state == KeyState::kActive ? KeyState::kDisabled : KeyState::kActive;
        changes.push_back(row);
    }
    return apply(std::move(changes));
}

Result<void> Writer::enable_all() {
    for (Change& row : rows_) {
        row.row.state = KeyState::kActive;
    }
    return apply(rows_);
}

Result<void> Writer::run(const SharedArea& area, uint32_t rate_per_s, pid_t parent) {
    const timespec pause{
        0, static_cast<long>(1'000'000'000 / std::min<uint64_t>(rate_per_s + 1, kRequestsMax_per_s))};
    const uint64_t began_ns = monotonic_ns();
    // When the parent is gone nobody waits for results, but the keys have to be enabled again.
    while (area.stop.load(std::memory_order_relaxed) == 0 && getppid() == parent) {
        tally_->ran_ns = monotonic_ns() - began_ns;
        const auto due = static_cast<uint64_t>(static_cast<double>(tally_->ran_ns) * 1e-9 * rate_per_s);
        if (due > tally_->changes) {
            // Not more than one change of a key in a request, and no catching up in one burst.
            const uint64_t count = std::min<uint64_t>(due - tally_->changes, rows_.size());
            if (Result<void> switched = switch_next(count); !switched) {
                return switched;
            }
            continue;
        }
        nanosleep(&pause, nullptr);
    }
    tally_->ran_ns = monotonic_ns() - began_ns;
    return {};
}

int tell(const apikeyd::Error& error) {
    std::fprintf(stderr, "apikey-bench: writer: %s\n", error.message.c_str());
    return kUnreachable;
}

}  // namespace

int run_writer(const LiveOptions& options, const KeyRing& ring, SharedArea* area, pid_t parent) {
    auto rows = changes_of(options, ring);
    if (!rows) {
        return tell(rows.error());
    }
    Writer writer(options.directory + "/" + options.instance + "/admin.sock", std::move(*rows),
                  &area->writer);
    area->ready.fetch_add(1, std::memory_order_relaxed);
    if (!wait_for_go(area)) {
        return kDone;
    }
    const Result<void> ran = writer.run(*area, options.writer_rate_per_s, parent);
    const WriterTally during = area->writer;  // what follows is not part of the run
    const Result<void> enabled = writer.enable_all();
    area->writer = during;
    if (!ran) {
        return tell(ran.error());
    }
    return enabled ? static_cast<int>(kDone) : tell(enabled.error());
}

}  // namespace apikey::bench
