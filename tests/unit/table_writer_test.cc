// The table's writer against its reader: what was published is found, what was damaged is not adopted.

#include "shm/table_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>

#include "shm/header_checks.h"
#include "tests/support/test_instance.h"

namespace {

using namespace apikey::shm;
using apikey::test::make_foreign_key;
using apikey::test::make_key;
using apikey::test::make_keys;
using apikey::test::TestKey;

constexpr uint64_t kSeed = 0x1234567890abcdef;
constexpr uint8_t kUid[kUidLength] = {1, 2, 3};

/// A table in ordinary memory.
class Table {
  public:
    explicit Table(const TableGeometry& geometry)
        : bytes_(geometry.file_bytes()),
          base_(static_cast<uint8_t*>(std::aligned_alloc(kPageBytes, bytes_)), std::free) {
        std::memset(base_.get(), 0, bytes_);
        TableWriter::format(base_.get(), geometry, 7, 0, kUid, kSeed);
        reopen();
    }
    explicit Table(uint64_t keys, uint64_t details_bytes = 1 << 20)
        : Table(TableGeometry::for_keys(keys, details_bytes, {})) {}

    /// The next writer of the same bytes.
    void reopen() {
        TableView view;
        ASSERT_EQ(check_table(base_.get(), bytes_, 7, &view), AttachResult::kOk);
        writer_.emplace(base_.get(), view);
    }
    TableWriter& writer() { return *writer_; }
    const TableView& view() const { return writer_->view(); }
    TableHeader& header() { return *reinterpret_cast<TableHeader*>(base_.get()); }
    uint8_t* base() { return base_.get(); }
    Slot& slot(uint64_t index) { return const_cast<Slot&>(view().slots[index]); }

    Found find(const TestKey& key) const { return find_slot(view(), key.hash(kSeed), key.digest()); }
    TableWriter::Publish add(const TestKey& key, SlotState state = SlotState::kActive, DetailText text = {}) {
        text.id = key.id;
        text.foreign = key.foreign;
        const uint32_t reference = writer().append_detail(text);
        if (reference == 0) {
            return TableWriter::Publish::kNoRoom;
        }
        return writer().publish(key.hash(kSeed), key.digest(), Meta::make(state, Meta::kNever, 0, 0),
                                reference, key.foreign);
    }

  private:
    uint64_t bytes_;
    std::unique_ptr<uint8_t, void (*)(void*)> base_;
    std::optional<TableWriter> writer_;
};

TEST(TableGeometry, LeavesAQuarterMoreThanAskedFor) {
    for (const uint64_t keys : {uint64_t{1}, uint64_t{10000}, uint64_t{1000000}}) {
        const TableGeometry geometry = TableGeometry::for_keys(keys, keys * 50, {});
        EXPECT_GE(geometry.slot_count * kLoadMax, keys * 125) << keys;
        EXPECT_GE(geometry.details_bytes, keys * 50 * 5 / 4) << keys;
        EXPECT_EQ(geometry.slot_count % (kSlotsPerLine * kGroupLines), 0u);
        EXPECT_EQ(geometry.file_bytes() % kPageBytes, 0u);
        EXPECT_GE(geometry.file_bytes(), geometry.details_offset() + geometry.details_bytes);
    }
}

TEST(TableWriter, FindsEveryKeyUpToTheLoadLimitAndNoOther) {
    Table table(5000);
    const uint64_t limit = table.view().slot_count() * kLoadMax / 100;
    std::vector<TestKey> keys;
    size_t beyond_the_cap = 0;  // a daemon would build another generation for such a key
    while (keys.size() < limit) {
        ASSERT_TRUE(table.writer().has_room(1, 64));
        TestKey key = make_key();
        if (table.add(key) == TableWriter::Publish::kDone) {
            keys.push_back(std::move(key));
        } else {
            ASSERT_LT(++beyond_the_cap, limit / 100);
        }
    }
    EXPECT_FALSE(table.writer().has_room(1, 64)) << "the load limit is reached";
    EXPECT_EQ(table.header().live.load(), limit);
    for (const TestKey& key : keys) {
        const Found found = table.find(key);
        ASSERT_NE(found.index, kNoSlot);
        DetailView detail;
        ASSERT_TRUE(read_detail(table.view(), table.slot(found.index).detail.load(), &detail));
        EXPECT_EQ(std::string_view(detail.id, detail.id_bytes), key.id);
    }
    for (const TestKey& key : make_keys(2000)) {
        EXPECT_EQ(table.find(key).index, kNoSlot);
    }
    EXPECT_TRUE(table.writer().scan());
}

TEST(TableWriter, AnInsertBeyondTheProbeCapHasNoRoomAndChangesNothing) {
    Table table(10);
    TestKey key = make_key();
    const uint64_t hash = 42;
    const uint32_t detail = table.writer().append_detail({.id = key.id});
    const uint64_t meta = Meta::make(SlotState::kActive, Meta::kNever, 0, 0);
    DigestKey digest{{1, 2}, 3};
    for (uint64_t i = 0; i < kProbeLinesMax * kSlotsPerLine; ++i) {
        digest.digest[0] = i;
        ASSERT_EQ(table.writer().publish(hash, digest, meta, detail, false), TableWriter::Publish::kDone)
            << i;
        EXPECT_EQ(find_slot(table.view(), hash, digest).meta, meta);
    }
    const uint64_t live = table.header().live.load();
    digest.digest[0] = 1000;
    EXPECT_EQ(table.writer().publish(hash, digest, meta, detail, false), TableWriter::Publish::kNoRoom);
    EXPECT_EQ(table.header().live.load(), live);
    EXPECT_EQ(find_slot(table.view(), hash, digest).index, kNoSlot);
}

TEST(TableWriter, AProbeWrapsAtTheLastLine) {
    Table table(10);
    uint64_t hash = ~uint64_t{0};  // in the last group; odd: the second half is the preferred one
    while (Probe(hash, table.view()).first() != table.view().slot_count() - 1) {
        hash -= 2;
    }
    const uint32_t detail = table.writer().append_detail({.id = "wrapped"});
    std::vector<uint64_t> indices;
    for (uint64_t i = 0; i < 2 * kSlotsPerLine; ++i) {
        const DigestKey digest{{i, 0}, 0};
        ASSERT_EQ(
            table.writer().publish(hash, digest, Meta::make(SlotState::kActive, 1, 0, 0), detail, false),
            TableWriter::Publish::kDone);
        indices.push_back(find_slot(table.view(), hash, digest).index);
    }
    const uint64_t last = table.view().slot_count() - 1;
    EXPECT_EQ(indices, (std::vector<uint64_t>{last, last - 1, 1, 0}));
}

TEST(TableWriter, ADeadSlotIsRevivedByItsKeyAlone) {
    Table table(100);
    const TestKey key = make_key();
    ASSERT_EQ(table.add(key), TableWriter::Publish::kDone);
    const Found first = table.find(key);
    table.writer().set_meta(first.index, Meta::with_state(first.meta, SlotState::kDead));
    EXPECT_EQ(table.header().live.load(), 0u);
    EXPECT_EQ(table.header().dead.load(), 1u);
    EXPECT_EQ(Meta::state(table.find(key).meta), SlotState::kDead);

    DigestKey other = key.digest();
    other.tag ^= 1;  // same home, differs in the last of the 20 bytes only
    EXPECT_EQ(find_slot(table.view(), key.hash(kSeed), other).index, kNoSlot);
    ASSERT_EQ(table.writer().publish(key.hash(kSeed), other, first.meta, 1, false),
              TableWriter::Publish::kDone);
    EXPECT_NE(find_slot(table.view(), key.hash(kSeed), other).index, first.index)
        << "never another key's slot";

    ASSERT_EQ(table.add(key, SlotState::kDisabled), TableWriter::Publish::kDone);
    EXPECT_EQ(table.find(key).index, first.index);
    EXPECT_EQ(Meta::state(table.find(key).meta), SlotState::kDisabled);
    EXPECT_EQ(table.header().live.load(), 2u);
    EXPECT_EQ(table.header().dead.load(), 0u);
}

TEST(TableWriter, CountsForeignKeysThroughEveryChangeOfState) {
    Table table(100);
    const TestKey native = make_key();
    const TestKey foreign = make_foreign_key("an-imported-key-of-any-form");
    table.add(native);
    EXPECT_EQ(table.header().foreign_keys.load(), 0u);
    table.add(foreign);
    EXPECT_EQ(table.header().foreign_keys.load(), 1u);
    const Found found = table.find(foreign);
    ASSERT_NE(found.index, kNoSlot);
    const auto set = [&](SlotState state) {
        table.writer().set_meta(found.index, Meta::with_state(found.meta, state));
        return table.header().foreign_keys.load();
    };
    EXPECT_EQ(set(SlotState::kRevoked), 1u);
    EXPECT_EQ(set(SlotState::kDead), 0u);
    EXPECT_EQ(set(SlotState::kActive), 1u) << "revived";
    EXPECT_EQ(table.header().live.load(), 2u);
    EXPECT_EQ(table.header().dead.load(), 0u);
}

TEST(TableWriter, MostlyDeadIsMoreThanAQuarter) {
    Table table(10);
    const uint64_t quarter = table.view().slot_count() / 4;
    for (uint64_t i = 0; i <= quarter; ++i) {
        EXPECT_FALSE(table.writer().mostly_dead()) << i;
        table.add(make_key(), SlotState::kActive);
        for (uint64_t index = 0; index < table.view().slot_count(); ++index) {
            const uint64_t meta = table.slot(index).meta.load();
            if (Meta::state(meta) == SlotState::kActive) {
                table.writer().set_meta(index, Meta::with_state(meta, SlotState::kDead));
            }
        }
    }
    EXPECT_TRUE(table.writer().mostly_dead());
}

TEST(TableWriter, EnvironmentsAreNumberedUntilAllAreTaken) {
    Table table(10);
    EXPECT_EQ(table.writer().environment(""), 0u);
    for (uint32_t i = 1; i < kEnvironmentsMax; ++i) {
        EXPECT_EQ(table.writer().environment("env-" + std::to_string(i)), i);
    }
    EXPECT_EQ(table.writer().environment("one-too-many"), std::nullopt);
    EXPECT_EQ(table.writer().environment("env-7"), 7u) << "known ones are still found";
    EXPECT_EQ(table.writer().environment("env-1"), 1u) << "not a prefix of env-10";
    table.reopen();
    EXPECT_EQ(table.writer().environment("env-15"), 15u) << "the next writer knows them";
}

TEST(TableWriter, AnEnvironmentsNameFitsWithItsNul) {
    Table table(10);
    EXPECT_EQ(table.writer().environment("fifteen-letters"), 1u);
    EXPECT_EQ(table.writer().environment("sixteen-letters-"), std::nullopt);
}

TEST(TableWriter, DetailsSayWhatWasAppended) {
    Table table(10);
    const std::string metadata(kDetailMetadataMax, 'm');
    const std::string name(kDetailNameMax, 'n');
    const std::string owner(kDetailOwnerMax, 'o');
    const DetailText text{"an-id", owner, name, metadata, 1700000000, true};
    const uint32_t reference = table.writer().append_detail(text);
    ASSERT_NE(reference, 0u);
    DetailView detail;
    ASSERT_TRUE(read_detail(table.view(), reference, &detail));
    EXPECT_EQ(std::string_view(detail.id, detail.id_bytes), "an-id");
    EXPECT_EQ(std::string_view(detail.owner, detail.owner_bytes), owner);
    EXPECT_EQ(std::string_view(detail.name, detail.name_bytes), name);
    EXPECT_EQ(std::string_view(detail.metadata, detail.metadata_bytes), metadata);
    EXPECT_EQ(detail.created_s, 1700000000u);
    EXPECT_TRUE(detail.foreign);
    EXPECT_TRUE(table.writer().same_detail(reference, text));
    for (DetailText other : {text, text, text, text, text, text}) {
        static int which = 0;
        const std::function<void()> changes[] = {
            [&] { other.id = "another"; },  [&] { other.owner = ""; },    [&] { other.name = "x"; },
            [&] { other.metadata = "{}"; }, [&] { other.created_s = 1; }, [&] { other.foreign = false; }};
        changes[which]();
        EXPECT_FALSE(table.writer().same_detail(reference, other)) << which;
        ++which;
    }
}

TEST(TableWriterDeathTest, WordsLongerThanTheirLengthFieldsAreABug) {
    Table table(10);
    const std::string name(kDetailNameMax + 1, 'n');
    EXPECT_DEATH(table.writer().append_detail({.id = "an-id", .name = name}), "kDetailNameMax");
}

TEST(TableWriter, OwnersAreStoredOnceAlsoByTheNextWriter) {
    Table table(10);
    const auto used = [&] { return table.header().details_used.load(); };
    const TestKey key = make_key();
    table.add(key, SlotState::kActive, {.owner = "an owner with a rather long name"});
    const uint64_t after_first = used();
    table.add(make_key(), SlotState::kActive, {.owner = "an owner with a rather long name"});
    const uint64_t alone = used() - after_first;
    EXPECT_EQ(alone, TableWriter::detail_bytes({.id = key.id}));
    table.reopen();
    ASSERT_TRUE(table.writer().scan());
    const uint64_t before = used();
    table.add(make_key(), SlotState::kActive, {.owner = "an owner with a rather long name"});
    EXPECT_EQ(used() - before, alone);
}

TEST(TableWriter, FullDetailsAreRefusedAndLeaveTheTableAsItWas) {
    TableGeometry geometry = TableGeometry::for_keys(10, 0, {});
    geometry.details_bytes = 4096;
    Table table(geometry);
    uint64_t added = 0;
    while (table.writer().has_room(1, 32)) {
        ASSERT_EQ(table.add(make_key()), TableWriter::Publish::kDone);
        ++added;
    }
    EXPECT_EQ(added, (4096 - 8) / 24u);
    EXPECT_EQ(table.writer().append_detail({.id = "123456789012"}), 0u);
    EXPECT_EQ(table.writer().append_detail({.id = "1", .owner = "no room for the owner"}), 0u);
    EXPECT_EQ(table.header().live.load(), added);
    EXPECT_TRUE(table.writer().scan());
}

TEST(TableScan, AdoptsAGoodTableAndMendsOnlyItsCounts) {
    Table table(200);
    std::vector<TestKey> keys = make_keys(100);
    for (size_t i = 0; i < keys.size(); ++i) {
        keys[i] = i % 10 == 0 ? make_foreign_key("imported-key-number-" + std::to_string(i)) : keys[i];
        table.add(keys[i], i % 3 == 0 ? SlotState::kRevoked : SlotState::kActive, {.owner = "acme"});
    }
    const Found dead = table.find(keys[0]);
    table.writer().set_meta(dead.index, Meta::with_state(dead.meta, SlotState::kDead));
    table.header().live.store(77);
    table.header().dead.store(77);
    table.header().foreign_keys.store(0);
    table.reopen();
    ASSERT_TRUE(table.writer().scan());
    EXPECT_EQ(table.header().live.load(), 99u);
    EXPECT_EQ(table.header().dead.load(), 1u);
    EXPECT_EQ(table.header().foreign_keys.load(), 9u);
    for (const TestKey& key : keys) {
        EXPECT_NE(table.find(key).index, kNoSlot);
    }
}

TEST(TableScan, AdoptsWhatAKilledWriterLeft) {
    Table table(10);
    const TestKey key = make_key();
    // Killed before meta was stored: a digest and a detail that nobody names yet.
    Slot& half = table.slot(Probe(key.hash(kSeed), table.view()).first());
    half.digest[0] = 1;
    half.detail.store(table.writer().append_detail({.id = "half"}));
    EXPECT_TRUE(table.writer().scan());
    EXPECT_EQ(table.add(key), TableWriter::Publish::kDone);
    EXPECT_NE(table.find(key).index, kNoSlot);
}

/// Each way to damage a table of ten keys; every one must be refused.
struct Damage {
    const char* name;
    void (*apply)(Table& table, uint64_t index);  // `index`: a slot in use, with an owner and an environment
};

void PrintTo(const Damage& damage, std::ostream* out) {
    *out << damage.name;
}

class TableScanDamage : public testing::TestWithParam<Damage> {};

TEST_P(TableScanDamage, IsRefused) {
    Table table(100);
    const TestKey key = make_key();
    for (const TestKey& other : make_keys(10)) {
        table.add(other);
    }
    const uint32_t environment = table.writer().environment("live").value();
    table.add(key, SlotState::kActive, {.owner = "acme", .name = "a name", .metadata = "{}"});
    const Found found = table.find(key);
    table.writer().set_meta(found.index, found.meta | uint64_t{environment} << Meta::kEnvironmentShift);
    ASSERT_TRUE(table.writer().scan());
    GetParam().apply(table, found.index);
    table.reopen();
    EXPECT_FALSE(table.writer().scan());
}

const Damage kDamages[] = {
    {"unknown_state", [](Table& t, uint64_t i) { t.slot(i).meta.fetch_or(uint64_t{7} << 61); }},
    {"empty_with_other_bits", [](Table& t, uint64_t i) { t.slot(i).meta.fetch_and(~(uint64_t{7} << 61)); }},
    {"policy_beyond_capacity", [](Table& t, uint64_t i) { t.slot(i).meta.fetch_or(Meta::kPolicyMask << 6); }},
    {"unnamed_environment", [](Table& t, uint64_t i) { t.slot(i).meta.fetch_or(uint64_t{14} << 1); }},
    {"no_details", [](Table& t, uint64_t i) { t.slot(i).detail.store(0); }},
    {"details_beyond_the_file", [](Table& t, uint64_t i) { t.slot(i).detail.store(~0u); }},
    {"details_without_id", [](Table& t, uint64_t i) { t.slot(i).detail.fetch_add(1000); }},
    {"digest_of_another_home",
     [](Table& t, uint64_t i) {
         for (uint64_t at = 0; at < t.view().slot_count(); ++at) {
             const uint64_t apart = at > i ? at - i : i - at;
             if (apart > 32 && t.slot(at).meta.load() != 0) {
                 t.slot(i).detail.store(t.slot(at).detail.load());  // hashed by another key's id
             }
         }
     }},
    {"a_hole_before_it",
     [](Table& t, uint64_t i) {
         // Moved one line on, with its home left empty: readers stop at the hole.
         Slot& from = t.slot(i);
         Slot& to = t.slot((i + 4) % t.view().slot_count());
         to.digest[0] = from.digest[0];
         to.digest[1] = from.digest[1];
         to.tag = from.tag;
         to.detail.store(from.detail.load());
         to.meta.store(from.meta.load());
         from.meta.store(0);
     }},
    {"another_seed", [](Table& t, uint64_t) { t.header().hash_seed ^= 1; }},
    {"details_used_before_the_last_entry",
     [](Table& t, uint64_t) { t.header().details_used.fetch_sub(kDetailUnit); }},
    {"details_used_beyond_the_area",
     [](Table& t, uint64_t) { t.header().details_used.store(t.view().details_bytes + kDetailUnit); }},
    {"details_used_between_units", [](Table& t, uint64_t) { t.header().details_used.fetch_add(1); }},
    {"details_used_zero", [](Table& t, uint64_t) { t.header().details_used.store(0); }},
};

INSTANTIATE_TEST_SUITE_P(Each, TableScanDamage, testing::ValuesIn(kDamages),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

/// Random operations on the table and on a map; after each step both know the same.
class Model {
  public:
    explicit Model(uint64_t seed) : random_(seed), table_(300) {
        for (size_t i = 0; i < 400; ++i) {
            keys_.push_back(
                i % 5 == 0 ? make_foreign_key("imported-" + std::to_string(seed) + "-" + std::to_string(i))
                           : make_key());
        }
    }

    void step() {
        const size_t which = pick(keys_.size());
        const TestKey& key = keys_[which];
        const auto known = states_.find(which);
        const bool alive = known != states_.end() && known->second != SlotState::kDead;
        if (!alive) {
            const SlotState state = pick_state();
            if (table_.writer().has_room(1, 64)) {
                ASSERT_EQ(table_.add(key, state), TableWriter::Publish::kDone);
                states_[which] = state;
            }
        } else {
            const SlotState state = pick(4) == 0 ? SlotState::kDead : pick_state();
            const Found found = table_.find(key);
            ASSERT_NE(found.index, kNoSlot);
            table_.writer().set_meta(found.index, Meta::with_state(found.meta, state));
            states_[which] = state;
        }
        if (pick(500) == 0) {
            table_.reopen();
            ASSERT_TRUE(table_.writer().scan());
        }
    }

    void compare() {
        uint64_t live = 0;
        uint64_t dead = 0;
        uint64_t foreign = 0;
        for (size_t which = 0; which < keys_.size(); ++which) {
            const Found found = table_.find(keys_[which]);
            const auto known = states_.find(which);
            if (known == states_.end()) {
                ASSERT_EQ(found.index, kNoSlot);
                continue;
            }
            ASSERT_NE(found.index, kNoSlot);
            ASSERT_EQ(Meta::state(found.meta), known->second);
            const bool is_dead = known->second == SlotState::kDead;
            is_dead ? ++dead : ++live;
            foreign += !is_dead && keys_[which].foreign ? 1 : 0;
        }
        ASSERT_EQ(table_.header().live.load(), live);
        ASSERT_EQ(table_.header().dead.load(), dead);
        ASSERT_EQ(table_.header().foreign_keys.load(), foreign);
    }

  private:
    size_t pick(size_t below) { return std::uniform_int_distribution<size_t>(0, below - 1)(random_); }
    SlotState pick_state() {
        constexpr SlotState kStates[] = {SlotState::kActive, SlotState::kDisabled, SlotState::kRevoked,
                                         SlotState::kElsewhere};
        return kStates[pick(4)];
    }

    std::mt19937_64 random_;
    Table table_;
    std::vector<TestKey> keys_;
    std::map<size_t, SlotState> states_;
};

TEST(TableWriter, AgreesWithAMapUnderRandomOperations) {
    for (uint64_t seed = 1; seed <= 5; ++seed) {
        Model model(seed);
        for (int step = 0; step < 4000; ++step) {
            ASSERT_NO_FATAL_FAILURE(model.step()) << "seed " << seed << " step " << step;
            if (step % 100 == 0) {
                ASSERT_NO_FATAL_FAILURE(model.compare()) << "seed " << seed << " step " << step;
            }
        }
        ASSERT_NO_FATAL_FAILURE(model.compare()) << "seed " << seed;
    }
}

}  // namespace
