// An instance for tests and benchmarks without a daemon: a directory of its own under /dev/shm, control and
// generations written directly through the daemon's own classes.
//
// Failures of the machine (no space, no rights) throw std::runtime_error; nothing here is for production.
// Not thread-safe: one thread changes the instance, any number of clients read it.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shm/attach.h"
#include "shm/control_writer.h"
#include "shm/directory.h"
#include "shm/generation.h"

namespace apikey::test {

/// A key with its plaintext, as only tests keep it.
struct TestKey {
    std::string text;
    std::string id;  ///< the native id, or a made-up one for a foreign key
    bool foreign = false;
    uint8_t sha256[32] = {};

    shm::DigestKey digest() const { return shm::DigestKey::from(sha256); }
    /// Where a table with this seed looks for it first.
    uint64_t hash(uint64_t seed) const;
};

/// A native key with fresh random from the kernel.
TestKey make_key(std::string_view prefix = "ak_live");
/// An imported key: `text` as it stands. Its id is the first 12 digits of its digest.
TestKey make_foreign_key(std::string_view text);
std::vector<TestKey> make_keys(size_t count, std::string_view prefix = "ak_live");

/// What a key's slot and details say beyond the key itself.
struct KeySettings {
    shm::SlotState state = shm::SlotState::kActive;
    uint64_t expires_s = shm::Meta::kNever;
    std::string environment = "live";
    std::string owner = {};
    std::string name = {};
    std::string metadata = {};
    uint32_t created_s = 0;
    uint32_t policy = 0;  ///< of the current generation
};

struct TestInstanceOptions {
    uint64_t capacity_keys = 1000;
    uint64_t details_bytes = 0;  ///< 0: enough for keys with an id and a short name
    uint32_t cpus = 4;
    uint64_t shards_budget_bytes = uint64_t{16} << 20;
    uint32_t meter_words = 0;   ///< of each key
    bool publish_first = true;  ///< false: control only, so that clients wait
};

/// Makes the directory and, unless told otherwise, publishes an empty first generation with a fresh
/// heartbeat. The directory is removed by the destructor and, should the process be killed, by a shell that
/// waits for its end.
class TestInstance {
  public:
    explicit TestInstance(const TestInstanceOptions& options = {});
    ~TestInstance();
    TestInstance(const TestInstance&) = delete;
    TestInstance& operator=(const TestInstance&) = delete;

    const std::string& base() const { return base_; }          ///< `directory` of a client's options
    const std::string& instance() const { return instance_; }  ///< `instance` of a client's options
    const std::string& path() const { return path_; }          ///< <base>/<instance>
    std::string file(const std::string& name) const { return path_ + "/" + name; }
    shm::AttachOptions attach_options() const { return {path_.c_str(), shm::kAnyOwner}; }

    shm::Directory& directory() { return *directory_; }
    shm::ControlWriter& control() { return *control_; }
    shm::Generation& current() { return *generations_.back(); }
    /// All that are not deleted yet, oldest first.
    std::vector<std::unique_ptr<shm::Generation>>& generations() { return generations_; }

    /// Adds a key to the current generation, or revives its dead slot. False when it did not fit.
    bool add(const TestKey& key, const KeySettings& settings = {});
    /// Stores another state in every generation, older first, as the daemon does.
    void set_state(const TestKey& key, shm::SlotState state);
    void set_expiry(const TestKey& key, uint64_t expires_s);
    /// Where the key's slot is in a table; kNoSlot when it has none.
    static uint64_t slot_index(const shm::Generation& generation, const TestKey& key);

    /// Builds a generation with room for `capacity_keys` (0: as the first), copies what is alive, names,
    /// announces and publishes it. Returns its number.
    uint32_t publish_new_generation(uint64_t capacity_keys = 0);
    /// The two halves: complete under its names but not announced; announced and current.
    std::unique_ptr<shm::Generation> build_generation(uint64_t capacity_keys = 0);
    void publish(std::unique_ptr<shm::Generation> built);
    /// Deletes superseded generations that nobody maps. Returns how many went.
    size_t drop_unused();

    /// Closes control and opens it again, as the next daemon would.
    void reopen_control();
    void beat(int64_t age_ms = 0);

  private:
    void set_meta(const TestKey& key, uint64_t (*change)(uint64_t meta, uint64_t argument),
                  uint64_t argument);
    void start_remover();

    TestInstanceOptions options_;
    std::string base_;
    std::string instance_ = "default";
    std::string path_;
    int remover_pipe_ = -1;
    pid_t remover_ = -1;
    std::optional<shm::Directory> directory_;
    std::optional<shm::ControlWriter> control_;
    std::vector<std::unique_ptr<shm::Generation>> generations_;
    uint32_t last_number_ = 0;
};

}  // namespace apikey::test
