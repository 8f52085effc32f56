// Hostile segments: whatever stands in a table and its cells, nothing outside of them is read or written.
//
// The input edits a valid small segment, of one generation or of two in the middle of a switch: first what
// there is and how many bytes of it, then edits of so many bytes at so many places. Every file stands in a
// block of exactly its size. What the checks accept is then used as the sweep, a client and a restarted
// daemon use it.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <span>
#include <vector>

#include "apikey/apikey.h"
#include "core/table_policies.h"
#include "memory_instance.h"
#include "shm/cells.h"
#include "shm/header_checks.h"
#include "shm/index_hash.h"
#include "shm/meters.h"
#include "shm/table_writer.h"
#include "valid_segment.h"

namespace {

using namespace apikey::shm;
using namespace apikey::fuzz;

constexpr uint32_t kGeneration = 7;
constexpr uint32_t kNext = 8;
constexpr uint64_t kSeed = 42;
constexpr uint64_t kNextSeed = 43;

/// The input's first byte.
constexpr uint8_t kTableCut = 1;
constexpr uint8_t kCellsCut = 2;
constexpr uint8_t kSizesStay = 4;  ///< as the headers have them, whatever they were cut to
constexpr uint8_t kSwitching = 8;  ///< the second generation is announced
constexpr uint8_t kMoved = 16;     ///< and all meters of the first are marked

/// The first byte of an edit.
constexpr uint8_t kOfCells = 1;
constexpr uint8_t kOfNext = 2;

void require(bool condition) {
    if (!condition) {
        abort();  // libFuzzer keeps the input
    }
}

/// The bytes of a generation's files, before they stand in blocks.
struct Files {
    std::vector<uint8_t> table;
    std::vector<uint8_t> cells;
};

const Files& valid_files() {
    static const Files files{valid_table(kGeneration, 0, kSeed), valid_cells(kGeneration, 0)};
    return files;
}

const Files& valid_next() {
    static const Files files{valid_table(kNext, kGeneration, kNextSeed), valid_cells(kNext, kGeneration)};
    return files;
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

/// A word here and there, or one column of the area's entries, most of which take 64 bytes, or all of it.
void edit_area(std::vector<uint8_t>& bytes, const Area& area, uint8_t how, size_t place, uint64_t argument) {
    const size_t width = (how & 8) != 0 ? 4 : 8;
    const auto change = [&](size_t at, uint64_t (*changed)(uint64_t, uint8_t, uint64_t), size_t wide) {
        uint64_t value = 0;
        std::memcpy(&value, bytes.data() + at, wide);
        value = changed(value, how, argument);
        std::memcpy(bytes.data() + at, &value, wide);
    };
    const size_t end = area.offset + area.bytes;
    if ((how & 16) == 0) {
        change(area.offset + place % (area.bytes / width) * width, edited, width);
        return;
    }
    const auto noise = [](uint64_t, uint8_t, uint64_t seed) { return seed * 0x9e3779b97f4a7c15; };
    const bool all = (how & 8) != 0;
    for (size_t at = area.offset + (all ? 0 : place % 8 * 8); at + 8 <= end; at += all ? 8 : 64) {
        change(at, all ? +noise : edited, 8);
        argument += all ? 1 : 0;
    }
}

/// One edit: `how`, `place`, `argument`, after the byte that chose the file. The highest bits of `how` choose
/// an area; without them it is the header's beginning, or the whole file.
void edit(std::vector<uint8_t>& bytes, std::span<const Area, kAreas> areas, Input& input) {
    auto how = input.take<uint8_t>();
    const auto place = input.take<uint16_t>();
    const auto argument = input.take<uint64_t>();
    Area area{0, (how & 16) != 0 ? bytes.size() : 256};
    if ((how >> 5) != 0) {
        area = areas[(how >> 5) - 1];
    } else {
        how &= 15;
    }
    if (area.offset + area.bytes <= bytes.size() && area.bytes >= 8) {
        edit_area(bytes, area, how, place, argument);
    }
}

void use_table(const TableView& table) {
    uint32_t number = 0;
    for (const FuzzKey& key : fuzz_keys()) {
        const Found found = find_slot(table, key.hash(table.hash_seed), key.digest());
        require(found.index == kNoSlot || found.index < table.slot_count());
        const uint32_t reference =
            found.index != kNoSlot ? table.slots[found.index].detail.load() : number * 1021;
        ++number;
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

/// Every way that a request may ask, of keys that reach every kind of policy.
class Server {
  public:
    /// Of the instance that is there.
    Server() {
        require(apikey_open(nullptr, &client_) != APIKEY_NO_MEMORY && client_ != nullptr);
        for (const char* expression : {"a.read", "(a.write OR b.*) AND a.read", "*"}) {
            apikey_scopes* scopes = nullptr;
            const apikey_result compiled = apikey_scopes_compile(client_, expression, &scopes, nullptr);
            require(compiled == APIKEY_OK || compiled == APIKEY_UNKNOWN_SCOPE);
            scopes_.push_back(scopes);
        }
    }
    ~Server() {
        for (apikey_scopes* scopes : scopes_) {
            apikey_scopes_free(scopes);
        }
        apikey_close(client_);
    }
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    void serve() {
        static constexpr uint32_t kCosts[] = {1, 1, 3, UINT32_MAX, 0};
        static const char* const kAddresses[] = {"192.0.2.7", "2001:db8::1", "198.51.100.1", "::1"};
        for (unsigned round = 0; round < 4; ++round) {
            unsigned number = round;
            for (const FuzzKey& key : fuzz_keys()) {
                apikey_address address;
                const char* text = kAddresses[number / 2 % std::size(kAddresses)];
                require(apikey_address_parse(text, std::strlen(text), &address) == APIKEY_OK);
                apikey_request request = APIKEY_REQUEST_INIT;
                request.scopes = scopes_[number % scopes_.size()];
                request.address = number % 5 != 4 ? &address : nullptr;
                request.cost = kCosts[number % std::size(kCosts)];
                ask(key, request, number % 2 != 0);
                ++number;
            }
        }
        ask_many();
        require(apikey_refresh(client_) <= APIKEY_UNKNOWN_SCOPE);
        ask(fuzz_keys()[2], APIKEY_REQUEST_INIT, true);
    }

  private:
    void ask(const FuzzKey& key, apikey_request request, bool limits_wanted) {
        apikey_limits limits;
        std::memset(&limits, 0xa5, sizeof limits);
        limits.size = sizeof limits;
        request.limits = limits_wanted ? &limits : nullptr;
        apikey_verdict verdict;
        const apikey_result asked =
            apikey_validate_request(client_, key.text.data(), key.text.size(), &request, &verdict);
        require(asked == (request.cost == 0 ? APIKEY_BAD_ARGUMENT : APIKEY_OK));
        check(verdict);
        if (limits_wanted && asked == APIKEY_OK) {
            require(std::memchr(limits.rate.name, '\0', sizeof limits.rate.name) != nullptr &&
                    std::memchr(limits.quota.name, '\0', sizeof limits.quota.name) != nullptr);
        }
    }
    void ask_many() {
        std::vector<apikey_key> keys;
        for (const FuzzKey& key : fuzz_keys()) {
            keys.push_back({key.text.data(), key.text.size()});
        }
        std::vector<apikey_verdict> verdicts(keys.size());
        require(apikey_validate_many(client_, keys.data(), keys.size(), verdicts.data()) <= keys.size());
        for (const apikey_verdict& verdict : verdicts) {
            check(verdict);
        }
    }
    void check(const apikey_verdict& verdict) {
        require(verdict.code <= APIKEY_UNAVAILABLE && verdict.key_id[sizeof verdict.key_id - 1] == '\0');
        char buffer[64];
        apikey_description description{};
        description.size = sizeof description;
        const int described = apikey_describe(client_, &verdict, buffer, sizeof buffer, &description);
        require(described >= -1 && described <= 1 && description.owner != nullptr);
    }

    apikey_client* client_ = nullptr;
    std::vector<apikey_scopes*> scopes_;
};

/// What an operator's tool and the next build read of an adopted table, and what the daemon changes in it.
void adopt_policies(TableWriter& writer, const TableView& table) {
    apikeyd::policies_of(table);
    for (uint64_t number = 0; number < writer.header().policies_used.load(); ++number) {
        apikeyd::terms_of_policy(table, table.policies[number]);
    }
    apikeyd::PolicySet set;
    set.scopes = {"a.read", "c.read"};
    apikeyd::LimitRow limit;
    limit.name = "weekly";
    limit.requests = limit.burst = 9;
    limit.rate_seconds = 60;
    set.plans = {{"all", {limit}}, {"new", {limit}}};
    set.owners = {{"acme", "new"}, {"another", "all"}};
    apikeyd::set_policies(writer, set);
    static const std::string kGranted[] = {"c.read"};
    writer.policies().policy({.scopes = kGranted, .plan = "all", .owner = "acme"});
    require(writer.policies().whole());
}

/// A restarted daemon: adopts what the scan accepts, and then writes into it.
void adopt(uint8_t* base, const TableView& table) {
    TableWriter writer(base, table, kMeterWordsMax);
    if (!writer.scan()) {
        return;
    }
    writer.environment("another");
    const uint32_t detail = writer.append_detail({"ba9876543210", "an owner", "", "", 2, true});
    const FuzzKey& added = fuzz_keys()[kKeys];  // by its digest, whatever it looks like
    const uint64_t hash = index_hash_digest(added.sha256, table.hash_seed);
    if (detail != 0 && find_slot(table, hash, added.digest()).index == kNoSlot &&
        writer.publish(hash, added.digest(), Meta::make(SlotState::kActive, 1, 0, 0), detail, true) ==
            TableWriter::Publish::kDone) {
        require(find_slot(table, hash, added.digest()).index != kNoSlot);
        require(writer.scan());
    }
    adopt_policies(writer, table);
    require(writer.scan());
}

Files files_of(const Files& valid, uint8_t shape, Input& input) {
    Files files = valid;
    if ((shape & kTableCut) != 0) {
        files.table.resize(input.take<uint16_t>() % (files.table.size() + 4096));
    }
    if ((shape & kCellsCut) != 0) {
        files.cells.resize(input.take<uint16_t>() % (files.cells.size() + 4096));
    }
    return files;
}

/// The size in the header is the first check; past it is where the others are.
void true_size(std::vector<uint8_t>& bytes) {
    const uint64_t size_now = bytes.size();
    if (bytes.size() >= 24) {
        std::memcpy(bytes.data() + offsetof(TableHeader, file_bytes), &size_now, sizeof size_now);
    }
}

void mark_moved(std::vector<uint8_t>& cells) {
    for (const Area& area : {cells_areas()[3], cells_areas()[4]}) {
        for (size_t at = area.offset; at + 8 <= area.offset + area.bytes && at + 8 <= cells.size(); at += 8) {
            cells[at + 7] |= kMovedBit >> 56;
        }
    }
}

/// As the daemon finds one generation, and leaves it to clients.
void use_generation(const Block& table_block, const Block& cells_block) {
    TableView table;
    if (check_table(table_block.data(), table_block.bytes(), kGeneration, &table) != AttachResult::kOk) {
        return;
    }
    use_table(table);
    CellsView cells;
    if (check_cells(cells_block.data(), cells_block.bytes(), table, &cells) != AttachResult::kOk) {
        return;
    }
    use_cells(cells);
    require(cells.cell_count == table.slot_count());
    // What the cells were made to do did not reach their header.
    CellsView again;
    require(check_cells(cells_block.data(), cells_block.bytes(), table, &again) == AttachResult::kOk);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Input input(data, size);
    const auto shape = input.take<uint8_t>();
    Files files = files_of(valid_files(), shape, input);
    Files next = valid_next();
    while (!input.empty()) {
        const auto which = input.take<uint8_t>();
        Files& edited = (which & kOfNext) != 0 ? next : files;
        (which & kOfCells) != 0 ? edit(edited.cells, cells_areas(), input)
                                : edit(edited.table, table_areas(), input);
    }
    if ((shape & kSizesStay) == 0) {
        true_size(files.table);
        true_size(files.cells);
    }
    if ((shape & kMoved) != 0) {
        mark_moved(files.cells);
    }
    const Block table(files.table);
    const Block cells(files.cells);
    const Block next_table(next.table);
    const Block next_cells(next.cells);
    use_generation(table, cells);
    {
        MemoryInstance instance(kGeneration, (shape & kSwitching) != 0 ? kNext : kGeneration,
                                {{kGeneration, &table, &cells}, {kNext, &next_table, &next_cells}});
        Server server;
        server.serve();
    }
    // Clients have the tables to read only.
    require(std::memcmp(table.data(), files.table.data(), files.table.size()) == 0 &&
            std::memcmp(next_table.data(), next.table.data(), next.table.size()) == 0);
    TableView view;
    if (check_table(table.data(), table.bytes(), kGeneration, &view) == AttachResult::kOk) {
        adopt(table.data(), view);
    }
    return 0;
}
