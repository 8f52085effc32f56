#include "core/denial_log.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <utility>

#include "base/clock.h"

namespace apikeyd {

using apikey::shm::CellsView;
using apikey::shm::Denial;
using apikey::shm::DenialRing;
using apikey::shm::DetailView;
using apikey::shm::TableView;

namespace {

/// By apikey_code; what limits in shadow mode would refuse is no denial.
constexpr std::array<std::string_view, 11> kCodeNames = {
    "VALID",        "MALFORMED",      "NOT_FOUND",      "REVOKED",
    "DISABLED",     "EXPIRED",        "IP_NOT_ALLOWED", "INSUFFICIENT_PERMISSIONS",
    "RATE_LIMITED", "USAGE_EXCEEDED", "UNAVAILABLE"};
constexpr uint32_t kFirstDenial = 1;

bool is_denial(uint32_t code) {
    return code >= kFirstDenial && code < kCodeNames.size();
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
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    });
}

/// When it was, as its server says; not later than now.
std::chrono::system_clock::time_point time_of(const Denial& denial) {
    const std::chrono::nanoseconds since(std::min<uint64_t>(denial.time_ns, realtime_now_ns()));
    return std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(since));
}

/// The fields of a line, and the text that they point to.
class DenialFields {
  public:
    DenialFields(const TableView& table, const Denial& denial) {
        fields_.emplace_back("code", kCodeNames[denial.code]);
        add_key(table, denial);
        if ((denial.parts & apikey::shm::kDenialAddress) != 0) {
            address_ = address_text(denial.address);
            fields_.emplace_back("address", address_);
        }
        if (denial.pid != 0) {
            fields_.emplace_back("pid", denial.pid);
        }
    }
    DenialFields(const DenialFields&) = delete;
    DenialFields& operator=(const DenialFields&) = delete;

    /// False for what no server writes.
    bool sound() const { return sound_; }
    std::span<const LogField> all() const { return fields_; }

  private:
    void add_key(const TableView& table, const Denial& denial) {
        if ((denial.parts & apikey::shm::kDenialSlot) != 0) {
            add_known_key(table, denial.slot);
        } else if ((denial.parts & apikey::shm::kDenialId) != 0) {
            id_.assign(denial.key_id, sizeof denial.key_id);
            sound_ = is_id(id_);
            fields_.emplace_back("unknown_key", id_);
        } else if ((denial.parts & apikey::shm::kDenialMark) != 0) {
            const auto* bytes = reinterpret_cast<const uint8_t*>(&denial.key_mark);
            id_ = fmt::format("{:02x}{:02x}", bytes[0], bytes[1]);
            fields_.emplace_back("sha256_end", id_);
        }
    }
    void add_known_key(const TableView& table, uint64_t slot) {
        uint64_t meta = 0;
        DetailView detail;
        sound_ = slot < table.slot_count() && see_slot(table, slot, &meta, &detail);
        if (!sound_) {
            return;
        }
        fields_.emplace_back("key", std::string_view(detail.id, detail.id_bytes));
        if (detail.owner_bytes != 0) {
            fields_.emplace_back("owner", std::string_view(detail.owner, detail.owner_bytes));
        }
    }

    bool sound_ = true;
    std::string id_;
    std::string address_;
    std::vector<LogField> fields_;
};

}  // namespace

/// A generation's ring on its way into the log.
struct DenialLog::Source {
    explicit Source(GenerationPtr of)
        : generation(std::move(of)), reader(cells(), ring().read.load(std::memory_order_relaxed)) {
        const ByCode now = counted_now();
        for (size_t code = 0; code < told.size(); ++code) {
            // A client's scribble cannot make more of it than there was.
            told[code] = std::min(ring().told[code].load(std::memory_order_relaxed), now[code]);
        }
        counted = settled = told;
    }

    const CellsView& cells() const { return generation->cells(); }
    DenialRing& ring() const { return *cells().ring; }
    ByCode counted_now() const {
        ByCode sums{};
        for (uint32_t code = kFirstDenial; code < kCodeNames.size(); ++code) {
            sums[code] = sum_code(cells(), code);
        }
        return sums;
    }
    void tell(uint32_t code, uint64_t answers) {
        told[code] += answers;
        ring().told[code].store(told[code], std::memory_order_relaxed);
    }

    GenerationPtr generation;
    apikey::shm::DenialReader reader;
    ByCode told{};
    ByCode counted{};  // at the last drain, and so in the ring by the next one
    ByCode settled{};  // at the one before
};

DenialLog::DenialLog(Publisher& publisher, const DenialLogConfig& config, Log& log)
    : publisher_(publisher), log_("denials", config, log), per_second_(config.per_second) {
    if (on()) {
        publisher_.set_denial_room(per_second_);
        take_up();
        return;
    }
    for (const GenerationPtr& generation : publisher_.all()) {
        if (generation->cells().base != nullptr) {
            close_denials(generation->cells());
        }
    }
}

DenialLog::~DenialLog() = default;

/// Begins with generations that are new here. Of one whose ring is closed, nobody was to be told before.
void DenialLog::take_up() {
    if (!on()) {
        return;
    }
    for (const GenerationPtr& generation : publisher_.all()) {
        const bool known = std::any_of(sources_.begin(), sources_.end(),
                                       [&](const auto& source) { return source->generation == generation; });
        const CellsView& cells = generation->cells();
        if (known || cells.base == nullptr) {
            continue;
        }
        if (cells.ring->open.load(std::memory_order_relaxed) != 1) {
            for (uint32_t code = kFirstDenial; code < kCodeNames.size(); ++code) {
                cells.ring->told[code].store(sum_code(cells, code), std::memory_order_relaxed);
            }
            cells.ring->read.store(cells.ring->begun.load(std::memory_order_relaxed),
                                   std::memory_order_relaxed);
        }
        sources_.push_back(std::make_unique<Source>(generation));
        open_denials(cells, per_second_);
    }
}

void DenialLog::drain() {
    take_up();
    const std::vector<GenerationPtr> all = publisher_.all();
    std::erase_if(sources_, [&](const std::unique_ptr<Source>& source) {
        return std::find(all.begin(), all.end(), source->generation) == all.end();
    });
    for (const std::unique_ptr<Source>& source : sources_) {
        drain(*source);
    }
}

void DenialLog::drain(Source& source) {
    source.settled = std::exchange(source.counted, source.counted_now());
    source.reader.drain([&](const Denial& denial) { write_line(source, denial); });
    source.ring().read.store(source.reader.next(), std::memory_order_relaxed);
}

void DenialLog::finish(const GenerationPtr& generation) {
    take_up();
    for (const std::unique_ptr<Source>& source : sources_) {
        if (source->generation == generation) {
            drain(*source);
            drain(*source);  // what is not whole by now never will be
        }
    }
    tell_left_out();
}

/// What a client may have scribbled is no line, and told as a number by the totals.
void DenialLog::write_line(Source& source, const Denial& denial) {
    const uint32_t code = denial.code;
    if (!is_denial(code) || lines_[code] >= per_second_) {
        return;
    }
    // It was counted before it was written. Where all were told that are, it is forged, or was told as left
    // out while its server was halted in between.
    if (source.told[code] >= sum_code(source.cells(), code)) {
        return;
    }
    const DenialFields fields(source.generation->table().view(), denial);
    if (!fields.sound()) {
        return;
    }
    ++lines_[code];
    log_.write_at(time_of(denial), LogLevel::info, "denied", fields.all());
    source.tell(code, 1);
    source.ring().read.store(source.reader.next(), std::memory_order_relaxed);
}

void DenialLog::end_second() {
    tell_left_out();
    for (const std::unique_ptr<Source>& source : sources_) {
        set_denial_room(source->cells(), per_second_);
    }
    lines_ = {};
}

/// What was counted a drain before the last one is in the log by now, or never will be.
void DenialLog::tell_left_out() {
    for (uint32_t code = kFirstDenial; code < kCodeNames.size(); ++code) {
        const auto left_out_of = [code](const Source& source) {
            return source.settled[code] - std::min(source.told[code], source.settled[code]);
        };
        uint64_t left_out = 0;
        for (const std::unique_ptr<Source>& source : sources_) {
            left_out += left_out_of(*source);
        }
        if (left_out == 0) {
            continue;
        }
        const LogField fields[] = {{"code", kCodeNames[code]}, {"count", left_out}};
        log_.write(LogLevel::warn, "denials.left_out", fields);
        for (const std::unique_ptr<Source>& source : sources_) {
            source->tell(code, left_out_of(*source));
        }
    }
}

}  // namespace apikeyd
