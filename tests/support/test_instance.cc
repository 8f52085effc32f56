#include "tests/support/test_instance.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <stdexcept>

#include "shm/index_hash.h"
#include "shm/key_form.h"
#include "shm/sha256.h"

namespace apikey::test {
namespace {

constexpr uint64_t kDetailBytesPerKey = 96;

template <typename T>
T take(shm::Result<T> result) {
    if (!result) {
        throw std::runtime_error(result.error().message);
    }
    if constexpr (!std::is_void_v<T>) {
        return std::move(*result);
    }
}

std::string make_base() {
    std::string base = "/dev/shm/apikey-test-XXXXXX";
    if (mkdtemp(base.data()) == nullptr) {
        throw std::runtime_error("cannot make " + base + ": " + strerror(errno));
    }
    std::filesystem::permissions(base,
                                 std::filesystem::perms(0755));  // other users may look for the instance
    return base;
}

uint64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t changed_state(uint64_t meta, uint64_t state) {
    return shm::Meta::with_state(meta, static_cast<shm::SlotState>(state));
}

uint64_t changed_expiry(uint64_t meta, uint64_t expires_s) {
    return shm::Meta::make(shm::Meta::state(meta), expires_s, shm::Meta::policy(meta),
                           shm::Meta::environment(meta));
}

/// Copies a slot that is alive, with its details, under the new table's seed.
void copy_slot(const shm::TableView& from, uint64_t index, shm::TableWriter* to) {
    const shm::Slot& slot = from.slots[index];
    const uint64_t meta = slot.meta.load(std::memory_order_acquire);
    if (shm::Meta::state(meta) == shm::SlotState::kEmpty || shm::Meta::state(meta) == shm::SlotState::kDead) {
        return;
    }
    shm::DetailView detail;
    if (!shm::read_detail(from, slot.detail.load(std::memory_order_acquire), &detail)) {
        throw std::runtime_error("a slot without details");
    }
    const char* environment = from.header().environments[shm::Meta::environment(meta)];
    const auto named = to->environment({environment, strnlen(environment, shm::kEnvironmentNameBytes)});
    shm::DetailText text;
    text.id = {detail.id, detail.id_bytes};
    text.owner = {detail.owner, detail.owner_bytes};
    text.name = {detail.name, detail.name_bytes};
    text.metadata = {detail.metadata, detail.metadata_bytes};
    text.created_s = detail.created_s;
    text.foreign = detail.foreign;
    const shm::DigestKey key{{slot.digest[0], slot.digest[1]}, slot.tag};
    const uint64_t seed = to->view().hash_seed;
    const uint64_t hash = detail.foreign
                              ? shm::index_hash_digest(reinterpret_cast<const uint8_t*>(slot.digest), seed)
                              : shm::index_hash_id(detail.id, seed);
    const uint64_t copied = shm::Meta::make(shm::Meta::state(meta), shm::Meta::expires_s(meta),
                                            shm::Meta::policy(meta), named.value());
    const uint32_t reference = to->append_detail(text);
    if (reference == 0 ||
        to->publish(hash, key, copied, reference, detail.foreign) != shm::TableWriter::Publish::kDone) {
        throw std::runtime_error("the new generation has no room for what the old one held");
    }
}

}  // namespace

uint64_t TestKey::hash(uint64_t seed) const {
    return foreign ? shm::index_hash_digest(sha256, seed) : shm::index_hash_id(id.data(), seed);
}

TestKey make_key(std::string_view prefix) {
    char text[shm::kNativeKeyLengthMax];
    size_t length = 0;
    while (length == 0) {  // the bytes may run out of unbiased ones
        uint8_t random[64];
        if (getrandom(random, sizeof random, 0) != sizeof random) {
            throw std::runtime_error("no random bytes from the kernel");
        }
        if (prefix.empty() || prefix.size() > shm::kPrefixLengthMax) {
            throw std::runtime_error("a prefix has 1 to 8 characters");
        }
        length = shm::native_key_make(prefix.data(), prefix.size(), random, sizeof random, text);
    }
    TestKey key;
    key.text.assign(text, length);
    key.id.assign(shm::native_key_id(text, length), shm::kIdLength);
    shm::sha256_kernel().hash(text, length, key.sha256);
    return key;
}

TestKey make_foreign_key(std::string_view text) {
    TestKey key;
    key.text = text;
    key.foreign = true;
    shm::sha256_kernel().hash(text.data(), text.size(), key.sha256);
    for (size_t i = 0; i < shm::kIdLength; ++i) {
        key.id += "0123456789abcdef"[key.sha256[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15];
    }
    return key;
}

std::vector<TestKey> make_keys(size_t count, std::string_view prefix) {
    std::vector<TestKey> keys;
    keys.reserve(count);
    for (size_t i = 0; i < count; ++i) {
        keys.push_back(make_key(prefix));
    }
    return keys;
}

TestInstance::TestInstance(const TestInstanceOptions& options)
    : options_(options), base_(make_base()), path_(base_ + "/" + instance_) {
    if (options_.details_bytes == 0) {
        options_.details_bytes = options_.capacity_keys * kDetailBytesPerKey;
    }
    start_remover();
    directory_.emplace(take(shm::Directory::open_and_lock(base_, instance_, static_cast<gid_t>(-1))));
    control_.emplace(take(shm::ControlWriter::open(directory_->fd(), static_cast<gid_t>(-1))));
    control_->set_state(shm::ControlState::kServing);
    last_number_ = static_cast<uint32_t>(now_ns() / 1000000000);
    beat();
    if (options_.publish_first) {
        publish_new_generation();
    }
}

TestInstance::~TestInstance() {
    generations_.clear();
    control_.reset();
    directory_.reset();
    std::error_code ignored;  // the remover tries again
    std::filesystem::remove_all(base_, ignored);
    // A line ends the remover at once, even while a forked child still holds the pipe.
    if (write(remover_pipe_, "\n", 1) != 1) {
        kill(remover_, SIGKILL);
    }
    close(remover_pipe_);
    int status = 0;
    while (waitpid(remover_, &status, 0) < 0 && errno == EINTR) {
    }
}

/// A shell that reads until this process and its forked children are gone, by whatever end, and removes what
/// is left. It is spawned, not forked, so that it holds no mapping and no lock.
void TestInstance::start_remover() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        throw std::runtime_error("no pipe for the remover");
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    std::string shell = "/bin/sh";
    std::string option = "-c";
    std::string script = "trap '' INT TERM HUP; read nothing; rm -rf -- \"$0\"";
    char* arguments[] = {shell.data(), option.data(), script.data(), base_.data(), nullptr};
    const int error = posix_spawn(&remover_, shell.c_str(), &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[0]);
    remover_pipe_ = ends[1];
    if (error != 0) {
        throw std::runtime_error(std::string("cannot start the remover: ") + strerror(error));
    }
}

bool TestInstance::add(const TestKey& key, const KeySettings& settings) {
    shm::TableWriter& table = current().table();
    shm::DetailText text;
    text.id = key.id;
    text.owner = settings.owner;
    text.name = settings.name;
    text.metadata = settings.metadata;
    text.created_s = settings.created_s;
    text.foreign = key.foreign;
    const auto environment = table.environment(settings.environment);
    if (!environment || !table.has_room(1, shm::TableWriter::detail_bytes(text))) {
        return false;
    }
    const uint32_t reference = table.append_detail(text);
    const uint64_t meta = shm::Meta::make(settings.state, settings.expires_s, settings.policy, *environment);
    return reference != 0 && table.publish(key.hash(table.view().hash_seed), key.digest(), meta, reference,
                                           key.foreign) == shm::TableWriter::Publish::kDone;
}

uint64_t TestInstance::slot_index(const shm::Generation& generation, const TestKey& key) {
    const shm::TableView& table = generation.table().view();
    return shm::find_slot(table, key.hash(table.hash_seed), key.digest()).index;
}

void TestInstance::set_meta(const TestKey& key, uint64_t (*change)(uint64_t meta, uint64_t argument),
                            uint64_t argument) {
    bool found = false;
    for (const auto& generation : generations_) {
        const uint64_t index = slot_index(*generation, key);
        if (index != shm::kNoSlot) {
            const uint64_t meta =
                generation->table().view().slots[index].meta.load(std::memory_order_relaxed);
            generation->table().set_meta(index, change(meta, argument));
            found = true;
        }
    }
    if (!found) {
        throw std::runtime_error("no generation holds this key");
    }
}

void TestInstance::set_state(const TestKey& key, shm::SlotState state) {
    set_meta(key, changed_state, static_cast<uint64_t>(state));
}

void TestInstance::set_expiry(const TestKey& key, uint64_t expires_s) {
    set_meta(key, changed_expiry, expires_s);
}

std::unique_ptr<shm::Generation> TestInstance::build_generation(uint64_t capacity_keys) {
    const uint64_t keys = std::max(capacity_keys, options_.capacity_keys);
    shm::GenerationPlan plan{};
    plan.generation = ++last_number_;
    plan.predecessor = control_->current();
    plan.geometry = shm::TableGeometry::for_keys(
        keys, std::max(options_.details_bytes, keys * kDetailBytesPerKey), {.policies = 1, .plans = 1});
    plan.cpus = options_.cpus;
    plan.shards_budget_bytes = options_.shards_budget_bytes;
    plan.meter_words = options_.meter_words;
    plan.clients_group = static_cast<gid_t>(-1);
    auto built = take(shm::Generation::create(directory_->fd(), plan));
    if (!generations_.empty()) {
        const shm::TableView& from = current().table().view();
        for (uint64_t index = 0; index < from.slot_count(); ++index) {
            copy_slot(from, index, &built->table());
        }
    }
    take(built->name_files());
    return built;
}

void TestInstance::publish(std::unique_ptr<shm::Generation> built) {
    control_->announce(built->number());
    generations_.push_back(std::move(built));
    control_->publish();
}

uint32_t TestInstance::publish_new_generation(uint64_t capacity_keys) {
    publish(build_generation(capacity_keys));
    return current().number();
}

size_t TestInstance::drop_unused() {
    return std::erase_if(generations_, [this](const std::unique_ptr<shm::Generation>& generation) {
        if (generation->number() == control_->current() || !generation->lock_unused()) {
            return false;
        }
        generation->unlink_files();
        return true;
    });
}

void TestInstance::reopen_control() {
    control_.reset();
    control_.emplace(take(shm::ControlWriter::open(directory_->fd(), static_cast<gid_t>(-1))));
    control_->set_state(shm::ControlState::kServing);
}

void TestInstance::beat(int64_t age_ms) {
    control_->beat(now_ns() - static_cast<uint64_t>(age_ms) * 1000000);
}

}  // namespace apikey::test
