// Hostile segments: whatever stands in a table and its cells, nothing outside of them is read or written.
//
// The input edits a valid small segment: first how many bytes of each file there are, then edits of so many
// bytes at so many places. Both files stand in blocks of exactly their size, where the address sanitizer sees
// one byte too many. What the checks accept is then used as a client, the sweep and a restarted daemon use
// it.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "shm/cells.h"
#include "shm/header_checks.h"
#include "shm/index_hash.h"
#include "shm/table_writer.h"

namespace {

using namespace apikey::shm;

constexpr uint32_t kGeneration = 7;
constexpr uint64_t kSlots = 64;
constexpr uint32_t kShards = 2;
constexpr uint64_t kOwners = 2;
constexpr uint64_t kSeed = 42;
constexpr uint8_t kUid[kUidLength] = {1, 2, 3, 4};
constexpr unsigned kKeys = 24;

/// A block of exactly `bytes`, aligned as a mapping is.
class Block {
  public:
    explicit Block(size_t bytes)
        : bytes_(bytes), data_(::operator new (bytes, std::align_val_t{kPageBytes})) {
        std::memset(data_, 0, bytes);
    }
    ~Block() { ::operator delete (data_, std::align_val_t{kPageBytes}); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    uint8_t* data() const { return static_cast<uint8_t*>(data_); }
    size_t bytes() const { return bytes_; }

  private:
    size_t bytes_;
    void* data_;
};

DigestKey digest_of(unsigned number) {
    return {{number * 0x9e3779b97f4a7c15ULL, ~uint64_t{number}}, number};
}

uint64_t hash_of(const DigestKey& key, uint64_t seed) {
    return index_hash_digest(reinterpret_cast<const uint8_t*>(key.digest), seed);
}

void require(bool condition) {
    if (!condition) {
        abort();  // libFuzzer keeps the input
    }
}

const std::vector<uint8_t>& valid_table() {
    static const std::vector<uint8_t> bytes = [] {
        TableGeometry geometry{};
        geometry.slot_count = kSlots;
        geometry.policy_capacity = 2;
        geometry.plan_capacity = 2;
        geometry.owner_capacity = kOwners;
        geometry.scope_capacity = 2;
        geometry.details_bytes = 2048;
        Block block(geometry.file_bytes());
        TableWriter::format(block.data(), geometry, kGeneration, 0, kUid, kSeed);
        reinterpret_cast<TableHeader*>(block.data())->probe_lines_max = 8;
        TableView view;
        require(check_table(block.data(), block.bytes(), kGeneration, &view) == AttachResult::kOk);
        TableWriter writer(block.data(), view);
        const auto environment = writer.environment("live");
        for (unsigned number = 0; number < kKeys; ++number) {
            const uint32_t detail =
                writer.append_detail({"0123456789ab", number % 2 != 0 ? "acme" : "", "name", "{}", 1, true});
            const DigestKey key = digest_of(number);
            require(detail != 0 &&
                    writer.publish(hash_of(key, kSeed), key,
                                   Meta::make(SlotState::kActive, Meta::kNever, 0, *environment), detail,
                                   true) == TableWriter::Publish::kDone);
        }
        require(writer.scan());
        return std::vector<uint8_t>(block.data(), block.data() + block.bytes());
    }();
    return bytes;
}

const std::vector<uint8_t>& valid_cells() {
    static const std::vector<uint8_t> bytes = [] {
        CellsHeader header{};
        header.magic = kCellsMagic;
        header.abi = kAbi;
        header.header_bytes = sizeof header;
        header.generation = kGeneration;
        std::memcpy(header.uid, kUid, sizeof kUid);
        header.totals_offset = sizeof header;
        header.totals_shards = kShards;
        header.cells_offset = header.totals_offset + kShards * sizeof(CodeTotals);
        header.cell_count = kSlots;
        header.cell_stride = sizeof(Cell);
        header.shards = kShards;
        header.shard_stride = kSlots * sizeof(Cell);
        header.denied_offset = offsetof(Cell, denied);
        header.meters_offset = sizeof(Cell);
        header.layout_hash = layout_hash();
        header.owners_offset = header.cells_offset + kShards * header.shard_stride;
        header.owner_count = kOwners;
        header.dirty_offset = header.owners_offset + kOwners * sizeof(OwnerMeters);
        header.dirty_shift = 4;
        header.dirty_bytes = kSlots >> header.dirty_shift;
        header.file_bytes = header.dirty_offset + header.dirty_bytes;
        std::vector<uint8_t> made(header.file_bytes);
        std::memcpy(made.data(), &header, sizeof header);
        return made;
    }();
    return bytes;
}

/// Reads the input to its end, then zeros.
class Input {
  public:
    Input(const uint8_t* data, size_t left) : at_(data), left_(left) {}
    bool empty() const { return left_ == 0; }
    template <typename Value>
    Value take() {
        Value value{};
        const size_t bytes = left_ < sizeof value ? left_ : sizeof value;
        std::memcpy(&value, at_, bytes);
        at_ += bytes;
        left_ -= bytes;
        return value;
    }

  private:
    const uint8_t* at_;
    size_t left_;
};

/// What geometry makes of itself is mostly wrong by a little, or by a lot.
uint64_t edited(uint64_t value, uint8_t how, uint64_t argument) {
    switch (how % 8) {
        case 0:
            return argument;
        case 1:
            return value + argument % 64;
        case 2:
            return value - argument % 64;
        case 3:
            return value ^ uint64_t { 1 } << argument % 64;
        case 4:
            return ~uint64_t{0} - argument % 4096;
        case 5:
            return value * (argument % 16);
        case 6:
            return value + (argument % 64) * 64;
        default:
            return 0;
    }
}

/// One edit: `how`, `place`, `argument`. Most places are in the header.
void edit(std::vector<uint8_t>& bytes, Input& input) {
    const auto how = input.take<uint8_t>();
    const auto place = input.take<uint16_t>();
    const auto argument = input.take<uint64_t>();
    const size_t width = (how & 8) != 0 ? 4 : 8;
    const size_t reach = (how & 16) != 0 ? bytes.size() : 256;
    if (reach > bytes.size() || reach < 8) {
        return;
    }
    const size_t at = place % (reach / width) * width;
    uint64_t value = 0;
    std::memcpy(&value, bytes.data() + at, width);
    value = edited(value, how, argument);
    std::memcpy(bytes.data() + at, &value, width);
}

void use_table(const TableView& table) {
    for (unsigned number = 0; number <= kKeys; ++number) {
        const DigestKey key = digest_of(number);
        const Found found = find_slot(table, hash_of(key, table.hash_seed), key);
        require(found.index == kNoSlot || found.index < table.slot_count());
        const uint32_t reference =
            found.index != kNoSlot ? table.slots[found.index].detail.load() : number * 1021;
        DetailView detail;
        if (read_detail(table, reference, &detail)) {
            // Read every byte of it, as describing does.
            uint64_t sum = 0;
            const auto add = [&sum](const char* text, uint32_t bytes) {
                for (uint32_t i = 0; i < bytes; ++i) {
                    sum += static_cast<uint8_t>(text[i]);
                }
            };
            add(detail.id, detail.id_bytes);
            add(detail.name, detail.name_bytes);
            add(detail.metadata, detail.metadata_bytes);
            add(detail.owner, detail.owner_bytes);
            require(sum != ~uint64_t{0});
        }
    }
}

void use_cells(const CellsView& cells) {
    for (uint64_t index = 0; index < cells.cell_count; index += cells.cell_count / 16 + 1) {
        count_key(cells, index, static_cast<uint32_t>(index * 7), index % 2 == 0);
    }
    count_key(cells, cells.cell_count - 1, ~0u, true);
    for (uint32_t code = 0; code < kCodesMax; ++code) {
        count_code(cells, code, code * 1000);
        sum_code(cells, code);
    }
    sweep_dirty(cells, [&cells](uint64_t first, uint64_t last) {
        require(first < last && last <= cells.cell_count);
        sum_cell(cells, first);
        sum_cell(cells, last - 1);
    });
    mark_dirty(cells, cells.cell_count - 1);
}

/// A restarted daemon: adopts what the scan accepts, and then writes into it.
void adopt(uint8_t* base, const TableView& table) {
    TableWriter writer(base, table);
    if (!writer.scan()) {
        return;
    }
    writer.environment("another");
    const uint32_t detail = writer.append_detail({"ba9876543210", "an owner", "", "", 2, true});
    const DigestKey key = digest_of(kKeys + 1);
    if (detail != 0 && find_slot(table, hash_of(key, table.hash_seed), key).index == kNoSlot &&
        writer.publish(hash_of(key, table.hash_seed), key, Meta::make(SlotState::kActive, 1, 0, 0), detail,
                       true) == TableWriter::Publish::kDone) {
        require(find_slot(table, hash_of(key, table.hash_seed), key).index != kNoSlot);
        require(writer.scan());
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Input input(data, size);
    std::vector<uint8_t> table_bytes = valid_table();
    std::vector<uint8_t> cells_bytes = valid_cells();
    const auto shape = input.take<uint8_t>();
    if ((shape & 1) != 0) {
        table_bytes.resize(input.take<uint16_t>() % (table_bytes.size() + 4096));
    }
    if ((shape & 2) != 0) {
        cells_bytes.resize(input.take<uint16_t>() % (cells_bytes.size() + 4096));
    }
    while (!input.empty()) {
        edit((input.take<uint8_t>() & 1) != 0 ? cells_bytes : table_bytes, input);
    }
    // The size in the header is the first check; past it is where the others are.
    const auto true_size = [](std::vector<uint8_t>& bytes) {
        const uint64_t size_now = bytes.size();
        if (bytes.size() >= 24) {
            std::memcpy(bytes.data() + offsetof(TableHeader, file_bytes), &size_now, sizeof size_now);
        }
    };
    if ((shape & 4) == 0) {
        true_size(table_bytes);
        true_size(cells_bytes);
    }
    const Block table_block(table_bytes.size());
    const Block cells_block(cells_bytes.size());
    std::memcpy(table_block.data(), table_bytes.data(), table_bytes.size());
    std::memcpy(cells_block.data(), cells_bytes.data(), cells_bytes.size());

    TableView table;
    if (check_table(table_block.data(), table_block.bytes(), kGeneration, &table) != AttachResult::kOk) {
        return 0;
    }
    use_table(table);
    CellsView cells;
    if (check_cells(cells_block.data(), cells_block.bytes(), table, &cells) == AttachResult::kOk) {
        use_cells(cells);
        require(cells.cell_count == table.slot_count());
        // What the cells were made to do did not reach their header.
        CellsView again;
        require(check_cells(cells_block.data(), cells_block.bytes(), table, &again) == AttachResult::kOk);
    }
    adopt(table_block.data(), table);
    return 0;
}
