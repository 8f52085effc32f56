#include "core/flusher.h"

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstring>
#include <map>
#include <new>

#include "base/clock.h"
#include "core/quota_words.h"
#include "shm/cells.h"

namespace apikeyd {

using apikey::shm::CellSums;
using apikey::shm::CellsView;
using apikey::shm::DetailView;
using apikey::shm::Generation;
using apikey::shm::Slot;
using apikey::shm::TableView;

namespace {

/// One in so many flushes looks at a cell whether it is marked or not, but a flush at so many such cells at
/// most: each that was ever counted in costs a look into the store.
constexpr uint64_t kRollingFlushes = 600;
constexpr uint64_t kRollingCellsMax = 1024;
/// Cells of a generation whose flushed sums are remembered, in some 12 MiB; beyond, all are forgotten and
/// brought once more.
constexpr size_t kFlushedCellsMax = size_t{1} << 18;

/// What one sweep of a generation found.
struct Swept {
    explicit Swept(GenerationPtr swept) : generation(std::move(swept)), quotas(realtime_now_ns()) {}

    GenerationPtr generation;
    std::vector<KeyCount> keys;
    std::vector<uint64_t> indices;  // of `keys`, to mark them again when the flush fails
    std::vector<CodeCount> codes;
    QuotaSweep quotas;

    GenerationCounts counts(bool closing) const {
        GenerationCounts counts;
        std::memcpy(counts.uid.data(), generation->uid(), counts.uid.size());
        counts.generation = generation->number();
        counts.keys = keys;
        counts.codes = codes;
        counts.quotas = quotas.counts();
        counts.closing = closing;
        return counts;
    }
};

/// By index: the sums of a cell that the store has seen last.
using FlushedSums = boost::unordered_flat_map<uint64_t, CellSums>;

/// Notes the sums of one slot's cell, unless `flushed` (nullptr: nothing is known) says that the store has
/// seen them. A mark stands for several cells, and the store's look-up costs far more than this one. Cells
/// are clients' to scribble on: only those of slots that hold a key count, and key and digest come from the
/// table.
void note_cell(const Generation& generation, uint64_t index, const FlushedSums* flushed, Swept& swept) {
    const TableView& table = generation.table().view();
    const Slot& slot = table.slots[index];
    const CellSums sums = sum_cell(generation.cells(), index);
    if (sums.allowed == 0 && sums.denied == 0) {
        return;
    }
    if (flushed != nullptr) {
        const auto seen = flushed->find(index);
        if (seen != flushed->end() && seen->second.allowed == sums.allowed &&
            seen->second.denied == sums.denied) {
            return;
        }
    }
    uint64_t meta = 0;
    DetailView detail;
    if (!see_slot(table, index, &meta, &detail)) {
        return;
    }
    KeyCount count;
    std::memcpy(count.digest.data(), slot.digest, count.digest.size());
    count.key_id = std::string_view(detail.id, detail.id_bytes);
    count.allowed = sums.allowed;
    count.denied = sums.denied;
    swept.keys.push_back(count);
    swept.indices.push_back(index);
    swept.quotas.note_key(generation, index, meta);
}

/// After all cells: what belongs to no key alone.
void note_totals(const Generation& generation, Swept& swept) {
    swept.quotas.note_owners(generation);
    for (uint8_t code = 0; generation.cells().base != nullptr && code < apikey::shm::kCodesMax; ++code) {
        swept.codes.push_back({code, sum_code(generation.cells(), code)});
    }
}

Swept sweep_all(const GenerationPtr& generation) {
    Swept swept(generation);
    for (uint64_t index = 0; index < generation->cells().cell_count; ++index) {
        note_cell(*generation, index, nullptr, swept);
    }
    note_totals(*generation, swept);
    return swept;
}

Result<FlushSummary> flush_swept(UsageStore& store, const std::vector<Swept>& swept, bool closing) {
    std::vector<GenerationCounts> counts;
    counts.reserve(swept.size());
    for (const Swept& one : swept) {
        counts.push_back(one.counts(closing));
    }
    Result<FlushSummary> result = store.flush(counts);
    if (!result) {
        for (const Swept& one : swept) {
            for (const uint64_t index : one.indices) {
                mark_dirty(one.generation->cells(), index);
            }
        }
    }
    return result;
}

/// The next flush brings the store everything.
void mark_all(const std::vector<GenerationPtr>& generations) {
    for (const GenerationPtr& generation : generations) {
        const CellsView& cells = generation->cells();
        for (uint64_t index = 0; index < cells.cell_count; index += uint64_t{1} << cells.dirty_shift) {
            mark_dirty(cells, index);
        }
    }
}

}  // namespace

/// State of the sweeps; used by one thread at a time (the worker, or the loop after the worker's end).
class Flusher::Sweep {
  public:
    /// Brings the store what is marked in these generations.
    Result<FlushSummary> flush(UsageStore& store, const std::vector<GenerationPtr>& generations) {
        std::vector<Swept> swept;
        for (const GenerationPtr& generation : generations) {
            swept.push_back(sweep_marked(generation));
        }
        Result<FlushSummary> result = flush_swept(store, swept, false);
        for (size_t i = 0; result && i < swept.size(); ++i) {
            note_flushed(swept[i]);
        }
        return result;
    }

    /// Another store has seen nothing.
    void forget_flushed() { flushed_.clear(); }

    void forget(const Generation& generation) {
        cursors_.erase(generation.number());
        flushed_.erase(generation.number());
    }

  private:
    Swept sweep_marked(const GenerationPtr& generation) {
        Swept swept(generation);
        const CellsView& cells = generation->cells();
        // A mark can be forged away, so some cells are marked by us each time and all are seen in the end.
        // Marking them, rather than looking at them here, keeps each cell from being noted twice in one
        // flush.
        uint64_t& cursor = cursors_[generation->number()];
        const uint64_t some = std::min(cells.cell_count / kRollingFlushes + 1, kRollingCellsMax);
        const uint64_t last = std::min(cursor + some, cells.cell_count);
        for (; cursor < last; ++cursor) {
            mark_dirty(cells, cursor);
        }
        cursor = last == cells.cell_count ? 0 : last;
        const FlushedSums& flushed = flushed_[generation->number()];
        sweep_dirty(cells, [&](uint64_t first, uint64_t end) {
            for (uint64_t index = first; index < end; ++index) {
                note_cell(*generation, index, &flushed, swept);
            }
        });
        note_totals(*generation, swept);
        return swept;
    }

    /// The store has seen what was swept.
    void note_flushed(const Swept& swept) {
        FlushedSums& flushed = flushed_[swept.generation->number()];
        if (flushed.size() + swept.keys.size() > kFlushedCellsMax) {
            flushed.clear();
        }
        for (size_t i = 0; i < std::min(swept.keys.size(), kFlushedCellsMax); ++i) {
            flushed[swept.indices[i]] = {swept.keys[i].allowed, swept.keys[i].denied};
        }
    }

    std::map<uint32_t, uint64_t> cursors_;  // generation -> next cell of the rolling sweep
    std::map<uint32_t, FlushedSums> flushed_;
};

/// One flush or harvest on its way through the worker.
struct Flusher::Job {
    std::vector<GenerationPtr> generations;
    std::vector<Done> waiting;
    Result<FlushSummary> result = fail("the flush has not run");
    bool harvested = false;
    bool reopened = false;
};

/// On the worker. Marks are taken here, so whatever fails puts all of them back.
Result<FlushSummary> Flusher::sweep_and_flush(UsageStore& store, Sweep& sweep, Job& job) {
    try {
        Result<FlushSummary> result = sweep.flush(store, job.generations);
        job.reopened = store.take_reopened();
        if (job.reopened) {
            // Another file has seen nothing of what was not marked.
            sweep.forget_flushed();
            mark_all(job.generations);
            result = sweep.flush(store, job.generations);
        }
        return result;
    } catch (const std::bad_alloc&) {
        mark_all(job.generations);
        return fail("no memory to sum up the counts; they stay in shared memory");
    }
}

Flusher::Flusher(Publisher& publisher, Worker& worker, UsageStore store, Log& log)
    : publisher_(publisher),
      worker_(worker),
      store_(std::make_shared<UsageStore>(std::move(store))),
      sweep_(std::make_shared<Sweep>()),
      log_(log) {
    forget_vanished();
    // The daemon before may have died between taking the marks and committing what it read.
    mark_all(publisher_.all());
}

Flusher::~Flusher() = default;

/// Baselines of generations whose files are gone (a reboot, a directory removed by hand) can never be added
/// to.
void Flusher::forget_vanished() {
    if (!publisher_.unread().empty()) {
        return;  // a daemon that can read those will want their baselines
    }
    const auto known = store_->generations_with_baselines();
    if (!known) {
        return;  // they cost space and nothing else; the next start tries again
    }
    const std::vector<GenerationPtr> here = publisher_.all();
    for (const GenerationUid& uid : *known) {
        const bool present = std::any_of(here.begin(), here.end(), [&](const GenerationPtr& generation) {
            return std::memcmp(generation->uid(), uid.data(), uid.size()) == 0;
        });
        if (!present && store_->forget(uid)) {
            log_.info("usage.forgot_generation", {{"reason", "its files are gone"}});
        }
    }
}

void Flusher::flush(Done done) {
    waiting_.push_back(std::move(done));
    if (!flushing_) {
        start();
    }
}

void Flusher::start() {
    auto job = std::make_shared<Job>();
    job->waiting = std::move(waiting_);
    waiting_.clear();
    job->generations = publisher_.all();
    flushing_ = true;
    const bool queued = worker_.submit(
        [job, store = store_, sweep = sweep_] { job->result = sweep_and_flush(*store, *sweep, *job); },
        [this, job] { finish(job); });
    if (!queued) {
        finish(job);
    }
}

void Flusher::finish(const std::shared_ptr<Job>& job) {
    flushing_ = false;
    if (job->result) {
        publisher_.control().flushed(realtime_now_ns());
        if (!last_error_.empty()) {
            log_.info("usage.flush_recovered");
        }
        last_error_.clear();
        if (job->reopened) {
            log_.warn("usage.reopened", {{"reason", "another file stands under the store's name"}});
        }
        quarantined_ += job->result->quarantined_new;
        if (job->result->quarantined_new != 0) {
            log_.warn("usage.quarantined", {{"cells", job->result->quarantined_new}});
        }
    } else if (last_error_ != job->result.error().message) {
        last_error_ = job->result.error().message;
        log_.error("usage.flush_failed", {{"reason", last_error_}});
    }
    for (const Done& done : job->waiting) {
        done(job->result);
    }
    if (!flushing_ && !waiting_.empty()) {  // a done may have asked for a flush, and begun it
        start();
    }
}

Result<FlushSummary> Flusher::flush_now() {
    return sweep_->flush(*store_, publisher_.all());
}

Result<std::shared_ptr<const StoredQuotas>> Flusher::stored_quotas() {
    if (!publisher_.superseded().empty()) {
        if (const Result<FlushSummary> flushed = flush_now(); !flushed) {
            log_.error("usage.flush_failed", {{"reason", flushed.error().message}});
        }
    }
    auto quotas = std::make_shared<StoredQuotas>();
    try {
        const auto read = store_->for_each_quota([&](const QuotaCount& count) { quotas->add(count); });
        return read ? Result<std::shared_ptr<const StoredQuotas>>(quotas) : tl::unexpected(read.error());
    } catch (const std::bad_alloc&) {
        return fail("no memory to read what was taken of quotas");
    }
}

void Flusher::retire_unused() {
    if (publisher_.current() == nullptr) {
        return;  // what an earlier daemon left is all that servers have
    }
    // As in the constructor, which could not mark these.
    mark_all(publisher_.open_waiting_cells());
    const std::vector<GenerationPtr> superseded = publisher_.superseded();
    for (const GenerationPtr& generation : superseded) {
        if (generation->cells_wait() ||
            std::find(retiring_.begin(), retiring_.end(), generation) != retiring_.end()) {
            continue;
        }
        if (generation->lock_unused()) {
            before_retiring_(generation);
            retire(generation);
        }
    }
}

/// The write lock is held by `generation` from here to its unlinking, so nobody counts in it any more. What
/// is left when it is cut short: tests/model/harvest.pml.
void Flusher::retire(const GenerationPtr& generation) {
    auto job = std::make_shared<Job>();
    job->generations = {generation};
    const bool queued = worker_.submit(
        [job, generation, store = store_, sweep = sweep_] {
            try {
                job->result = flush_swept(*store, {sweep_all(generation)}, true);
            } catch (const std::bad_alloc&) {
                job->result = fail("no memory to sum up the counts");
            }
            if (!job->result) {
                return;
            }
            generation->unlink_files();
            sweep->forget(*generation);
            GenerationUid uid;
            std::memcpy(uid.data(), generation->uid(), uid.size());
            // A failure leaves rows that cost space and nothing else.
            (void)store->forget(uid);
            job->harvested = true;
        },
        [this, job, generation] {
            std::erase(retiring_, generation);
            if (job->harvested) {
                last_harvest_error_.clear();
                publisher_.drop_superseded(generation);
                log_.info("generation.harvested", {{"generation", generation->number()}});
            } else if (std::exchange(last_harvest_error_, job->result.error().message) !=
                       job->result.error().message) {
                log_.warn("generation.harvest_failed",
                          {{"generation", generation->number()}, {"reason", job->result.error().message}});
            }
        });
    if (queued) {
        retiring_.push_back(generation);
    }
}

}  // namespace apikeyd
