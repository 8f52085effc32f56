#include "tests/crash/points.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>
#include <mutex>
#include <string>

namespace apikey::crash {
namespace {

std::atomic<bool> g_armed = false;
std::atomic<bool> g_met = false;
Record* g_record = nullptr;
Order g_order;
bool g_whole = false;
std::atomic<uint8_t> g_step = 0;
uint64_t g_random = 0;
std::string g_file;             // of the call that was met
int64_t g_clock_offset_ns = 0;  // set before there are threads

/// A run is over before its minute is.
constexpr int64_t kStartOfRun_ns = 1800000000000000000;  // the first of a minute, and of an hour

std::mutex g_places_mutex;
std::map<std::string, uint16_t>& places() {
    static std::map<std::string, uint16_t> known;
    return known;
}

/// The place's number; places are numbered as they are first met.
uint16_t place_number(const std::string& text, Kind kind) {
    const std::lock_guard lock(g_places_mutex);
    const auto [known, fresh] = places().emplace(text, static_cast<uint16_t>(places().size()));
    if (fresh) {
        if (known->second >= kPlacesMax) {
            fprintf(stderr, "more places than kPlacesMax\n");
            die();
        }
        Place& place = g_record->place[known->second];
        snprintf(place.text, sizeof place.text, "%s", text.c_str());
        place.kind = kind;
        g_record->places.store(static_cast<uint32_t>(places().size()));
    }
    return known->second;
}

/// Counts the point, and tells whether the order is for this one. `text` makes the place's name.
template <typename Text>
bool met(Kind kind, Text text) {
    const uint32_t index = g_record->points.fetch_add(1);
    const bool mine = index == g_order.at;
    if ((g_whole || mine) && index < kPointsMax) {
        g_record->sequence[index] = {place_number(text(), kind), g_step.load()};
    }
    if (mine) {
        g_record->done_at.store(index + 1);
        g_met.store(true);
    }
    return mine;
}

/// `../../shm/cells.h` and `/src/shm/cells.h` are `shm/cells.h`.
const char* short_path(const char* file) {
    for (const char* top : {"shm/", "daemon/", "client/"}) {
        const char* found = nullptr;
        for (const char* at = file; (at = strstr(at, top)) != nullptr; ++at) {
            found = at == file || at[-1] == '/' ? at : found;
        }
        if (found != nullptr) {
            return found;
        }
    }
    return file;
}

}  // namespace

void arm(Record* record, const Order& order, bool whole_record) {
    g_record = record;
    g_order = order;
    g_whole = whole_record;
    g_armed.store(true);
}

void start_clock() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    g_clock_offset_ns = kStartOfRun_ns - (now.tv_sec * 1000000000 + now.tv_nsec);
}

int64_t clock_offset_ns() {
    return g_clock_offset_ns;
}

void seed_random(uint64_t seed) {
    g_random = seed << 32;
}

uint64_t next_random() {
    g_random += 0x9e3779b97f4a7c15;  // splitmix64
    uint64_t mixed = (g_random ^ g_random >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    return mixed ^ mixed >> 31;
}

void set_step(uint8_t step) {
    g_step.store(step);
}

bool order_met() {
    return g_met.load();
}

const char* file_met() {
    return g_file.c_str();
}

void die() {
    kill(getpid(), SIGKILL);
    for (;;) {
        pause();
    }
}

void store_point(const test::CallPlace& where, Part part) {
    if (!g_armed.load(std::memory_order_relaxed)) {
        return;
    }
    const bool mine = met(Kind::kStore, [&] {
        return std::string(short_path(where.file_name())) + ":" + std::to_string(where.line()) +
               (part == Part::kHalf ? " half" : "");
    });
    if (mine) {
        if (g_order.fate != Fate::kKill) {
            fprintf(stderr, "point %u is no system call in this run: the points came in another order\n",
                    g_order.at);
        }
        die();
    }
}

CallAnswer call_point(const char* call, const char* file, Kind kind) {
    if (!g_armed.load(std::memory_order_relaxed)) {
        return {Answer::kDo, 0};
    }
    if (!met(kind, [&] { return std::string(call) + " " + file; })) {
        return {Answer::kDo, 0};
    }
    g_file = file;
    switch (g_order.fate) {
        case Fate::kNone:
            return {Answer::kDo, 0};
        case Fate::kKill:
            die();
        case Fate::kKillHalfway:
            return {Answer::kHalfAndDie, 0};
        case Fate::kFail:
            return {Answer::kFail, g_order.error};
        case Fate::kHalf:
            return {Answer::kHalf, 0};
    }
    return {Answer::kDo, 0};
}

}  // namespace apikey::crash
