#include "support/key_board.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <new>
#include <stdexcept>

namespace apikeyd::test {
namespace {

constexpr size_t kDifferencesMax = 5;
constexpr unsigned kPause_us = 1000;

Expect expectation(uint32_t word) {
    return static_cast<Expect>(word & 3);
}

uint64_t clock_ns(clockid_t clock) {
    timespec now{};
    clock_gettime(clock, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

bool is_of_limits(apikey_code code) {
    return code == APIKEY_RATE_LIMITED || code == APIKEY_USAGE_EXCEEDED;
}

bool is_denied(apikey_code code) {
    return code == APIKEY_REVOKED || code == APIKEY_DISABLED || code == APIKEY_EXPIRED || is_of_limits(code);
}

/// True when `told` may be what came of `made` tallied calls and at most `killed` that were not.
bool agrees(uint64_t told, int64_t forgiven, uint64_t made, uint64_t killed) {
    const uint64_t counted = told - static_cast<uint64_t>(forgiven);
    return counted >= made && counted - made <= killed;
}

int64_t difference(uint64_t told, uint64_t made) {
    return static_cast<int64_t>(told) - static_cast<int64_t>(made);
}

}  // namespace

KeyBoard::KeyBoard(size_t keys_max, unsigned lanes, LimitWitness* limits)
    : keys_max_(keys_max),
      lane_count_(lanes),
      limits_(limits),
      bytes_(sizeof(Shared) + 64 + lanes * sizeof(Lane) + keys_max * sizeof(Key)),
      margins_(keys_max) {
    void* memory =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        throw std::runtime_error("no memory to share");
    }
    shared_ = new (memory) Shared{};
    char* at = static_cast<char*>(memory) + (sizeof(Shared) + 63) / 64 * 64;
    lanes_ = new (at) Lane[lanes]{};
    keys_ = reinterpret_cast<Key*>(at + lanes * sizeof(Lane));  // zero is a Key's beginning
}

KeyBoard::~KeyBoard() {
    munmap(shared_, bytes_);
}

size_t KeyBoard::add(std::string_view text, Expect expect) {
    const size_t index = size();
    if (index == keys_max_ || text.size() > sizeof keys_[index].text) {
        throw std::runtime_error("the board has no room for the key");
    }
    Key& key = keys_[index];
    std::memcpy(key.text, text.data(), text.size());
    key.length = static_cast<uint32_t>(text.size());
    key.expected.store(static_cast<uint32_t>(expect));
    shared_->size.store(index + 1, std::memory_order_release);
    return index;
}

void KeyBoard::expect(size_t key, Expect expect) {
    const uint32_t changes = keys_[key].expected.load() >> 2;
    keys_[key].expected.store((changes + 1) << 2 | static_cast<uint32_t>(expect));
}

void KeyBoard::note_revoked(size_t key) {
    const uint64_t number = shared_->revoked.fetch_add(1);
    shared_->lately[number % kLately].store(static_cast<uint32_t>(key));
}

size_t KeyBoard::revoked_lately(size_t number) const {
    return shared_->lately[number % kLately].load();
}

bool KeyBoard::pause() {
    shared_->paused.store(true);
    return await([this] {
        return std::none_of(lanes_, lanes_ + lane_count_,
                            [](const Lane& lane) { return lane.state.load() == kCalling; });
    });
}

void KeyBoard::before_call(unsigned lane) {
    lanes_[lane].state.store(kCalling);
    while (shared_->paused.load() && !stopped()) {
        lanes_[lane].state.store(kPaused);
        usleep(kPause_us);
        lanes_[lane].state.store(kCalling);  // and looks once more
    }
}

void KeyBoard::lane_ended(unsigned lane) {
    Lane& ended = lanes_[lane];
    const uint32_t asking = ended.asking.exchange(0);
    for (uint32_t i = 0; i < asking; ++i) {
        ++margins_[ended.keys[i]].killed;
    }
    killed_ += asking;
    ended.state.store(kIdle);
}

void KeyBoard::begin_call(unsigned lane, const size_t* keys, size_t count, uint32_t cost, Call* call) {
    Lane& mine = lanes_[lane];
    for (size_t i = 0; i < count; ++i) {
        call->expected[i] = keys_[keys[i]].expected.load();
        mine.keys[i] = static_cast<uint32_t>(keys[i]);
    }
    call->cost = cost;
    if (limits_ != nullptr) {
        limits_->asking(lane, mine.keys, count, cost);
    }
    mine.asking.store(static_cast<uint32_t>(count), std::memory_order_release);
    call->before_ns = clock_ns(CLOCK_REALTIME_COARSE);  // no later than what the call reads, of either clock
}

void KeyBoard::end_call(unsigned lane, size_t count, const Call& call, const apikey_verdict* verdicts) {
    Lane& mine = lanes_[lane];
    const uint64_t after_ns = clock_ns(CLOCK_REALTIME);
    for (size_t i = 0; i < count; ++i) {
        judge(lane, mine.keys[i], call.expected[i], verdicts[i].code);
        if (limits_ != nullptr) {
            limits_->answered(lane, mine.keys[i], call.cost, verdicts[i].code, call.before_ns, after_ns);
        }
    }
    if (limits_ != nullptr) {
        limits_->done(lane);
    }
    mine.asking.store(0, std::memory_order_release);
    mine.validations.fetch_add(count, std::memory_order_relaxed);
}

void KeyBoard::call(unsigned lane, apikey_client* client, const size_t* keys, size_t count) {
    apikey_key batch[kBatchMax];
    apikey_verdict verdicts[kBatchMax];
    for (size_t i = 0; i < count; ++i) {
        batch[i] = {keys_[keys[i]].text, keys_[keys[i]].length};
    }
    Call call;
    begin_call(lane, keys, count, 1, &call);
    if (count == 1) {
        apikey_validate(client, batch[0].data, batch[0].len, &verdicts[0]);
    } else {
        apikey_validate_many(client, batch, count, verdicts);
    }
    end_call(lane, count, call, verdicts);
}

apikey_code KeyBoard::call_one(unsigned lane, apikey_client* client, size_t key,
                               const apikey_request& request) {
    Call call;
    apikey_verdict verdict;
    begin_call(lane, &key, 1, request.cost, &call);
    apikey_validate_request(client, keys_[key].text, keys_[key].length, &request, &verdict);
    end_call(lane, 1, call, &verdict);
    return verdict.code;
}

void KeyBoard::judge(unsigned lane, uint32_t index, uint32_t before, apikey_code code) {
    Key& key = keys_[index];
    shared_->codes[code].fetch_add(1, std::memory_order_relaxed);
    if (code == APIKEY_VALID) {
        key.allowed.fetch_add(1, std::memory_order_relaxed);
    } else if (is_denied(code)) {
        key.denied.fetch_add(1, std::memory_order_relaxed);
    }
    const Expect expected = expectation(before);
    const bool valid = code == APIKEY_VALID || (expected == Expect::kLimited && is_of_limits(code));
    const bool wrong = ((expected == Expect::kValid || expected == Expect::kLimited) && !valid &&
                        !(code == APIKEY_UNAVAILABLE && shared_->unavailable_allowed.load())) ||
                       (expected == Expect::kNotValid && valid) ||
                       (expected != Expect::kLimited && is_of_limits(code));
    if (!wrong || key.expected.load() != before) {
        return;
    }
    const uint64_t number = shared_->violations.fetch_add(1);
    if (number < kFirstMax) {
        shared_->first[number] = {index, code, expected, lane, clock_ns(CLOCK_MONOTONIC)};
        shared_->told.fetch_add(1);
    }
}

uint64_t KeyBoard::validations() const {
    uint64_t sum = 0;
    for (unsigned lane = 0; lane < lane_count_; ++lane) {
        sum += validations(lane);
    }
    return sum;
}

std::vector<Violation> KeyBoard::first_violations() const {
    return {shared_->first, shared_->first + std::min(shared_->told.load(), kFirstMax)};
}

std::string KeyBoard::id(size_t key) const {
    const char* id = apikey::shm::native_key_id(keys_[key].text, keys_[key].length);
    return {id, apikey::shm::kIdLength};
}

std::vector<std::string> KeyBoard::differences(const Totals& told) const {
    std::vector<std::string> found;
    const auto note = [&](const std::string& what, uint64_t told_count, uint64_t made, uint64_t killed) {
        if (found.size() < kDifferencesMax) {
            found.push_back(what + ": the store has " + std::to_string(told_count) + ", the clients made " +
                            std::to_string(made) + " and were killed in at most " + std::to_string(killed));
        }
    };
    for (size_t i = 0; i < size(); ++i) {
        const auto key = told.by_id.find(id(i));
        const Totals::Key counts = key != told.by_id.end() ? key->second : Totals::Key{};
        const Margin& margin = margins_[i];
        const uint64_t allowed = keys_[i].allowed.load();
        const uint64_t denied = keys_[i].denied.load();
        if (!agrees(counts.allowed, margin.forgiven_allowed, allowed, margin.killed)) {
            note(id(i) + " allowed", counts.allowed - static_cast<uint64_t>(margin.forgiven_allowed), allowed,
                 margin.killed);
        }
        if (!agrees(counts.denied, margin.forgiven_denied, denied, margin.killed)) {
            note(id(i) + " denied", counts.denied - static_cast<uint64_t>(margin.forgiven_denied), denied,
                 margin.killed);
        }
    }
    for (unsigned code = 0; code <= APIKEY_UNAVAILABLE; ++code) {
        const char* name = apikey_code_name(static_cast<apikey_code>(code));
        const auto total = told.by_code.find(name);
        const uint64_t counted = total != told.by_code.end() ? total->second : 0;
        const uint64_t made = shared_->codes[code].load();
        if (!agrees(counted, forgiven_codes_[code], made, killed_)) {
            note(name, counted - static_cast<uint64_t>(forgiven_codes_[code]), made, killed_);
        }
    }
    return found;
}

void KeyBoard::take_as_right(const Totals& told) {
    for (size_t i = 0; i < size(); ++i) {
        const auto key = told.by_id.find(id(i));
        const Totals::Key counts = key != told.by_id.end() ? key->second : Totals::Key{};
        margins_[i] = {0, difference(counts.allowed, keys_[i].allowed.load()),
                       difference(counts.denied, keys_[i].denied.load())};
    }
    killed_ = 0;
    for (unsigned code = 0; code <= APIKEY_UNAVAILABLE; ++code) {
        const auto total = told.by_code.find(apikey_code_name(static_cast<apikey_code>(code)));
        forgiven_codes_[code] =
            difference(total != told.by_code.end() ? total->second : 0, shared_->codes[code].load());
    }
}

}  // namespace apikeyd::test
