#include "core/denial_log.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>

#include "base/clock.h"

namespace apikeyd {

using apikey::shm::CellsView;
using apikey::shm::Denial;
using apikey::shm::DetailView;

namespace {

/// By apikey_code; what limits in shadow mode would refuse is no denial.
constexpr std::array<std::string_view, 11> kCodeNames = {
    "VALID",        "MALFORMED",      "NOT_FOUND",      "REVOKED",
    "DISABLED",     "EXPIRED",        "IP_NOT_ALLOWED", "INSUFFICIENT_PERMISSIONS",
    "RATE_LIMITED", "USAGE_EXCEEDED", "UNAVAILABLE"};

bool is_denial(uint64_t code) {
    return code != 0 && code < kCodeNames.size();
}

std::string address_text(const uint8_t* bytes) {
    constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const bool mapped = std::memcmp(bytes, kMapped, sizeof kMapped) == 0;
    char text[INET6_ADDRSTRLEN] = "";
    inet_ntop(mapped ? AF_INET : AF_INET6, bytes + (mapped ? sizeof kMapped : 0), text, sizeof text);
    return text;
}

/// An id's characters: what else a client puts there is none.
bool is_id(std::string_view id) {
    return std::all_of(id.begin(), id.end(), [](char c) {
        return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    });
}

}  // namespace

/// A generation's ring on its way into the log.
struct DenialLog::Source {
    Source(GenerationPtr of, uint64_t next) : generation(std::move(of)), reader(generation->cells(), next) {}

    const CellsView& cells() const { return generation->cells(); }
    ByCode counted_now() const {
        ByCode sums{};
        for (uint32_t code = 0; code < sums.size(); ++code) {
            sums[code] = is_denial(code) ? sum_code(cells(), code) : 0;
        }
        return sums;
    }
    void tell(uint64_t code, uint64_t answers) {
        told[code] += answers;
        cells().ring->told[code].store(told[code], std::memory_order_relaxed);
    }
    void set_room(uint64_t room) const {
        for (uint32_t code = 0; code < apikey::shm::kCodesMax; ++code) {
            cells().ring->room[code].store(is_denial(code) ? room : 0, std::memory_order_relaxed);
        }
    }

    GenerationPtr generation;
    apikey::shm::DenialReader reader;
    ByCode told{};
    ByCode counted{};  // at the last drain, and so in the ring by the next one
    ByCode settled{};  // at the one before
};

DenialLog::DenialLog(Publisher& publisher, std::unique_ptr<Log> log, uint32_t per_second_max)
    : publisher_(publisher), log_(std::move(log)), per_second_max_(per_second_max) {
    take_up();
    adopting_ = false;
}

DenialLog::~DenialLog() = default;

void DenialLog::close(const Publisher& publisher) {
    for (const GenerationPtr& generation : publisher.all()) {
        if (generation->cells().base == nullptr) {
            continue;
        }
        Source(generation, 0).set_room(0);
        generation->cells().ring->open.store(0, std::memory_order_relaxed);
    }
}

/// Begins with generations that are new here: of one that was made since, everything is told; of one that was
/// there before, what the daemon before did not come to.
void DenialLog::take_up() {
    for (const GenerationPtr& generation : publisher_.all()) {
        const bool known = std::any_of(sources_.begin(), sources_.end(),
                                       [&](const auto& source) { return source->generation == generation; });
        if (known || generation->cells().base == nullptr) {
            continue;
        }
        apikey::shm::DenialRing& ring = *generation->cells().ring;
        const bool open = ring.open.load(std::memory_order_relaxed) == 1;
        const uint64_t begun = ring.begun.load(std::memory_order_relaxed);
        const uint64_t next = open        ? ring.read.load(std::memory_order_relaxed)
                              : adopting_ ? begun
                                          : uint64_t{0};
        auto source = std::make_unique<Source>(generation, next);
        const ByCode counted = source->counted_now();
        for (size_t code = 0; code < counted.size(); ++code) {
            const uint64_t told = ring.told[code].load(std::memory_order_relaxed);
            source->told[code] = open ? std::min(told, counted[code]) : adopting_ ? counted[code] : 0;
            source->tell(code, 0);
        }
        source->counted = source->settled = source->told;
        ring.read.store(next, std::memory_order_relaxed);
        ring.open.store(1, std::memory_order_relaxed);
        source->set_room(per_second_max_);
        sources_.push_back(std::move(source));
    }
}

void DenialLog::drain() {
    take_up();
    const std::vector<GenerationPtr> all = publisher_.all();
    std::erase_if(sources_, [&](const std::unique_ptr<Source>& source) {
        const bool gone = std::find(all.begin(), all.end(), source->generation) == all.end();
        source->settled = std::exchange(source->counted, source->counted_now());
        const auto visit = [&](const Denial& denial) { write_line(*source, denial); };
        source->reader.drain(visit);
        if (gone) {  // nobody maps it any more: what is not whole will never be
            source->reader.drain(visit);
            note_left_out(*source, source->counted_now(), left_out_);
        }
        source->cells().ring->read.store(source->reader.next(), std::memory_order_relaxed);
        return gone;
    });
}

/// What a client may have scribbled is no line, and told as a number by the totals.
void DenialLog::write_line(Source& source, const Denial& denial) {
    if (!is_denial(denial.code) || lines_[denial.code] >= per_second_max_) {
        return;
    }
    std::vector<LogField> fields{{"code", kCodeNames[denial.code]}};
    DetailView detail;
    char mark[5];
    std::string address;
    if ((denial.parts & apikey::shm::kDenialSlot) != 0) {
        const apikey::shm::TableView& table = source.generation->table().view();
        uint64_t meta = 0;
        if (denial.slot >= table.slot_count() || !see_slot(table, denial.slot, &meta, &detail)) {
            return;
        }
        fields.emplace_back("key", std::string_view(detail.id, detail.id_bytes));
        if (detail.owner_bytes != 0) {
            fields.emplace_back("owner", std::string_view(detail.owner, detail.owner_bytes));
        }
    } else if ((denial.parts & apikey::shm::kDenialId) != 0) {
        const std::string_view id(denial.key_id, sizeof denial.key_id);
        if (!is_id(id)) {
            return;
        }
        fields.emplace_back("unknown_key", id);
    } else if ((denial.parts & apikey::shm::kDenialMark) != 0) {
        const auto* bytes = reinterpret_cast<const uint8_t*>(&denial.key_mark);
        *fmt::format_to(mark, "{:02x}{:02x}", bytes[0], bytes[1]) = '\0';
        fields.emplace_back("sha256_end", std::string_view(mark));
    }
    if ((denial.parts & apikey::shm::kDenialAddress) != 0) {
        address = address_text(denial.address);
        fields.emplace_back("address", address);
    }
    if (denial.pid != 0) {
        fields.emplace_back("pid", denial.pid);
    }
    ++lines_[denial.code];
    const std::chrono::nanoseconds since(std::min(denial.time_ns, realtime_now_ns()));
    log_->write_at(std::chrono::system_clock::time_point(
                       std::chrono::duration_cast<std::chrono::system_clock::duration>(since)),
                   LogLevel::info, "denied", fields);
    source.tell(denial.code, 1);
}

void DenialLog::note_left_out(Source& source, const ByCode& counted, ByCode& left_out) {
    for (size_t code = 0; code < counted.size(); ++code) {
        if (counted[code] > source.told[code]) {
            left_out[code] += counted[code] - source.told[code];
            source.tell(code, counted[code] - source.told[code]);
        }
    }
}

void DenialLog::end_second() {
    ByCode left_out = std::exchange(left_out_, {});
    for (const std::unique_ptr<Source>& source : sources_) {
        note_left_out(*source, source->settled, left_out);
        source->set_room(per_second_max_);
    }
    tell_left_out(left_out);
    lines_ = {};
}

void DenialLog::tell_left_out(const ByCode& left_out) {
    for (size_t code = 0; code < kCodeNames.size(); ++code) {
        if (left_out[code] != 0) {
            log_->write(LogLevel::warn, "denials.left_out",
                        {{"code", kCodeNames[code]}, {"count", left_out[code]}});
        }
    }
}

}  // namespace apikeyd
