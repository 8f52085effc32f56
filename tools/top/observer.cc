#include "tools/top/observer.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/clock.h"

namespace apikeyd::top {

namespace {

namespace shm = apikey::shm;
using shm::AttachResult;

constexpr std::string_view kTableName = "table.";
constexpr size_t kLimitsShown = 200;  // more than any screen is high

uint64_t load(const shm::Word& word) {
    return word.load(std::memory_order_relaxed);  // a number for people
}

std::optional<std::string> read_locks() {
    std::ifstream file("/proc/locks");
    std::ostringstream text;
    text << file.rdbuf();
    return file ? std::optional(text.str()) : std::nullopt;
}

}  // namespace

Observer::~Observer() {
    forget_all();
}

void Observer::forget_all() {
    for (auto& [number, generation] : generations_) {
        shm::detach_generation(&generation.mapping);
    }
    generations_.clear();
    shm::detach_control(&control_);
    looked_ = false;
    newest_ = 0;
    walked_ns_ = 0;
}

AttachResult Observer::renew_control() {
    shm::ControlMapping now;
    const AttachResult result = shm::attach_control({directory_.c_str(), owner_}, &now);
    if (result != AttachResult::kOk) {
        forget_all();
        return result;
    }
    if (control_.control != nullptr && (control_.inode != now.inode || control_.device != now.device)) {
        forget_all();
    }
    shm::detach_control(&control_);
    control_ = now;
    return AttachResult::kOk;
}

std::vector<uint32_t> Observer::numbers() const {
    std::vector<uint32_t> found;
    DIR* directory = opendir(directory_.c_str());
    if (directory == nullptr) {
        return found;
    }
    while (const dirent* entry = readdir(directory)) {
        const std::string_view name = entry->d_name;
        uint32_t number = 0;
        if (!name.starts_with(kTableName)) {
            continue;
        }
        const char* end = name.data() + name.size();
        const auto [stop, error] = std::from_chars(name.data() + kTableName.size(), end, number);
        if (error == std::errc{} && stop == end) {
            found.push_back(number);
        }
    }
    closedir(directory);
    return found;
}

void Observer::observe(uint32_t number) {
    Generation generation{};
    struct stat status {};
    const std::string path = directory_ + '/' + std::string(kTableName) + std::to_string(number);
    if (shm::observe_generation({directory_.c_str(), owner_}, number, &generation.mapping) !=
            AttachResult::kOk ||
        stat(path.c_str(), &status) != 0) {
        shm::detach_generation(&generation.mapping);
        return;
    }
    generation.device = status.st_dev;
    generation.inode = status.st_ino;
    generation.baseline = std::make_unique<CellBaseline>(generation.mapping.cells.cell_count);
    generation.known = looked_ && number > newest_;
    generation.named = true;
    generations_.emplace(number, std::move(generation));
}

void Observer::name_generations() {
    const std::vector<uint32_t> named = numbers();
    for (auto& [number, generation] : generations_) {
        generation.named = std::find(named.begin(), named.end(), number) != named.end();
    }
    for (const uint32_t number : named) {
        if (!generations_.contains(number)) {
            observe(number);
        }
    }
    for (const uint32_t number : named) {
        newest_ = std::max(newest_, number);
    }
    looked_ = true;
}

uint64_t Observer::mappings(const std::string& locks) const {
    uint64_t count = 0;
    for (const auto& [number, generation] : generations_) {
        count += count_mappings(locks, generation.device, generation.inode);
    }
    return count;
}

Health Observer::health() const {
    const shm::Control& control = *control_.control;
    Health health;
    health.state = static_cast<shm::ControlState>(control.state.load(std::memory_order_relaxed));
    health.heartbeat_ns = load(control.heartbeat_ns);
    health.pid = load(control.daemon_pid);
    health.started_ns = load(control.started_ns);
    health.loaded_ns = load(control.source_loaded_ns);
    health.refused = load(control.source_refused);
    health.flushed_ns = load(control.usage_flushed_ns);
    const uint64_t current_next = load(control.current_next);
    health.generation = shm::current_of(current_next);
    health.next = shm::next_of(current_next) > health.generation ? shm::next_of(current_next) : 0;
    for (const auto& [number, generation] : generations_) {
        health.generations += generation.named ? 1 : 0;
        health.unflushed_max += unflushed_max(generation.mapping.cells);
        if (number == health.generation) {
            const shm::TableHeader& header = generation.mapping.table.header();
            health.slots = generation.mapping.table.slot_count();
            health.live = load(header.live);
            health.dead = load(header.dead);
        }
    }
    if (const std::optional<std::string> locks = read_locks()) {
        health.mappings = mappings(*locks);
    }
    return health;
}

Look Observer::look() {
    Look look;
    look.attached = renew_control();
    look.monotonic_ns = monotonic_now_ns();
    look.realtime_ns = realtime_now_ns();
    if (look.attached != AttachResult::kOk) {
        return look;
    }
    // SYNC generation-published: acquire; pairs with ControlWriter::publish(). What is named is complete.
    if (shm::current_of(control_.control->current_next.load(std::memory_order_acquire)) == 0) {
        look.attached = AttachResult::kWaiting;
        return look;
    }
    name_generations();
    std::memcpy(look.instance.data(), control_.control->instance, look.instance.size());
    look.newest = newest_;
    for (const auto& [number, generation] : generations_) {
        GenerationCounts counts{.number = number};
        for (uint32_t code = 0; code < counts.codes.size(); ++code) {
            counts.codes[code] = sum_code(generation.mapping.cells, code);
        }
        look.generations.push_back(counts);
    }
    look.health = health();
    return look;
}

Activity Observer::walk(const Look& look, Sort sort, size_t keys) {
    Activity activity;
    if (look.attached != AttachResult::kOk) {
        return activity;
    }
    activity.seconds = walked_ns_ != 0 ? static_cast<double>(look.monotonic_ns - walked_ns_) / 1e9 : 0;
    for (auto at = generations_.begin(); at != generations_.end();) {
        auto& [number, generation] = *at;
        Activity begun;  // of a generation whose counts at the walk before are not known
        walk_counts(generation.mapping, generation.baseline.get(), sort, keys,
                    generation.known ? &activity : &begun);
        generation.known = true;
        if (number == look.health.generation || number == look.health.next) {
            walk_limits(generation.mapping, look.realtime_ns, kLimitsShown, &activity);
        }
        if (!generation.named) {
            shm::detach_generation(&generation.mapping);
            at = generations_.erase(at);
        } else {
            ++at;
        }
    }
    keep_busiest(&activity.keys, sort, keys);
    walked_ns_ = look.monotonic_ns;
    return activity;
}

}  // namespace apikeyd::top
