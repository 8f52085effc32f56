// Attaching to what somebody else wrote: every way it can be wrong has its own answer, and none crashes.

#include "shm/attach.h"
#include "shm/header_checks.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <vector>

#include "tests/support/child.h"
#include "tests/support/test_instance.h"

namespace apikey::shm {
/// Names in failure messages.
void PrintTo(AttachResult result, std::ostream* out) {
    *out << attach_text(result);
}
}  // namespace apikey::shm

namespace {

using namespace apikey::shm;
using apikey::test::in_child;
using apikey::test::make_key;
using apikey::test::TestInstance;
using apikey::test::TestKey;

constexpr uid_t kNobody = 65534;
constexpr gid_t kClientsGroup = 54321;

std::vector<uint8_t> bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

std::string numbered(const char* name, uint32_t generation) {
    char text[kSegmentNameBytes];
    segment_name(text, name, generation);
    return text;
}

size_t open_descriptors() {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        ++count;
    }
    return count;
}

TEST(AttachText, EveryResultHasItsOwnSentence) {
    std::set<std::string> texts;
    for (int result = 0; result <= static_cast<int>(AttachResult::kIoError); ++result) {
        texts.insert(attach_text(static_cast<AttachResult>(result)));
    }
    EXPECT_EQ(texts.size(), static_cast<size_t>(AttachResult::kIoError) + 1);
    EXPECT_EQ(texts.count("unknown"), 0u);
    EXPECT_STREQ(attach_text(static_cast<AttachResult>(99)), "unknown");
}

TEST(SegmentName, HoldsEveryNumber) {
    EXPECT_EQ(numbered("table", 1), "table.1");
    EXPECT_EQ(numbered("cells", 4294967295u), "cells.4294967295");
    EXPECT_EQ(numbered("table", 1000), "table.1000");
}

// ------------------------------------------------------------------------------------------------ bytes in
// memory

/// Copies of all three files of a small instance with a few keys, each in a block of exactly its size.
class AttachBytes : public testing::Test {
  protected:
    void SetUp() override {
        TestInstance instance({.capacity_keys = 10});
        for (int i = 0; i < 20; ++i) {
            keys_.push_back(make_key());
            ASSERT_TRUE(instance.add(keys_.back(), {.owner = "acme"}));
        }
        generation_ = instance.current().number();
        control_ = bytes_of(instance.file("control"));
        table_ = bytes_of(instance.file(numbered("table", generation_)));
        cells_ = bytes_of(instance.file(numbered("cells", generation_)));
        ASSERT_EQ(check(), AttachResult::kOk);
    }

    AttachResult check() {
        const AttachResult control = check_control(control_.data(), control_.size());
        if (control != AttachResult::kOk) {
            return control;
        }
        table_view_ = TableView{};
        cells_view_ = CellsView{};
        const AttachResult table = check_table(table_.data(), table_.size(), generation_, &table_view_);
        return table != AttachResult::kOk
                   ? table
                   : check_cells(cells_.data(), cells_.size(), table_view_, &cells_view_);
    }

    /// Does all that a client and the daemon's sweep do; the address sanitizer watches.
    void use() {
        for (const TestKey& key : keys_) {
            const Found found = find_slot(table_view_, key.hash(table_view_.hash_seed), key.digest());
            if (found.index != kNoSlot) {
                ASSERT_LT(found.index, table_view_.slot_count());
                DetailView detail;
                read_detail(table_view_, table_view_.slots[found.index].detail.load(), &detail);
                count_key(cells_view_, found.index, 3, true);
            }
            count_code(cells_view_, 1, 3);
        }
        sweep_dirty(cells_view_, [&](uint64_t first, uint64_t last) {
            for (uint64_t index = first; index < last; ++index) {
                sum_cell(cells_view_, index);
            }
        });
    }

    template <typename Value>
    AttachResult with(std::vector<uint8_t>& bytes, size_t offset, Value value) {
        std::vector<uint8_t> before = bytes;
        std::memcpy(bytes.data() + offset, &value, sizeof value);
        const AttachResult result = check();
        bytes = std::move(before);
        return result;
    }

    std::vector<TestKey> keys_;
    uint32_t generation_ = 0;
    std::vector<uint8_t> control_, table_, cells_;
    TableView table_view_;
    CellsView cells_view_;
};

struct BadField {
    size_t offset;
    unsigned width;
    uint64_t value;
    AttachResult expected;
};

constexpr uint64_t kHuge = uint64_t{1} << 62;

TEST_F(AttachBytes, EachFieldOfControlHasItsAnswer) {
    EXPECT_EQ(with(control_, offsetof(Control, magic), kTableMagic), AttachResult::kBadMagic);
    EXPECT_EQ(with(control_, offsetof(Control, abi), kAbi + 1), AttachResult::kAbiMismatch);
    EXPECT_EQ(with(control_, offsetof(Control, layout_hash), layout_hash() + 1),
              AttachResult::kLayoutMismatch);
    control_.resize(sizeof(Control) - 1);
    EXPECT_EQ(check(), AttachResult::kTruncated);
}

TEST_F(AttachBytes, EachFieldOfTheTableHasItsAnswer) {
    const uint64_t bytes = table_.size();
    const uint64_t slots_end = table_view_.slot_count() * sizeof(Slot) + kPageBytes;
    const BadField fields[] = {
        {offsetof(TableHeader, magic), 8, kCellsMagic, AttachResult::kBadMagic},
        {offsetof(TableHeader, abi), 4, kAbi + 1, AttachResult::kAbiMismatch},
        {offsetof(TableHeader, layout_hash), 8, 0, AttachResult::kLayoutMismatch},
        {offsetof(TableHeader, file_bytes), 8, bytes + 1, AttachResult::kTruncated},
        {offsetof(TableHeader, file_bytes), 8, bytes - 1, AttachResult::kBadGeometry},
        {offsetof(TableHeader, header_bytes), 4, 256, AttachResult::kBadGeometry},
        {offsetof(TableHeader, generation), 8, generation_ + 1, AttachResult::kBadGeometry},
        {offsetof(TableHeader, generation), 8, uint64_t{1} << 32 | generation_, AttachResult::kBadGeometry},
        {offsetof(TableHeader, slots_offset), 8, 0, AttachResult::kBadGeometry},
        {offsetof(TableHeader, slots_offset), 8, kPageBytes + 32, AttachResult::kBadGeometry},
        {offsetof(TableHeader, slots_offset), 8, bytes, AttachResult::kBadGeometry},
        {offsetof(TableHeader, slot_count), 8, 0, AttachResult::kBadGeometry},
        {offsetof(TableHeader, slot_count), 8, 3, AttachResult::kBadGeometry},
        {offsetof(TableHeader, slot_count), 8, kHuge / 16, AttachResult::kBadGeometry},
        {offsetof(TableHeader, slot_stride), 4, 0, AttachResult::kBadGeometry},
        {offsetof(TableHeader, slot_stride), 4, 64, AttachResult::kBadGeometry},
        {offsetof(TableHeader, digest_offset), 4, 8, AttachResult::kBadGeometry},
        {offsetof(TableHeader, digest_length), 4, 32, AttachResult::kBadGeometry},
        {offsetof(TableHeader, meta_offset), 4, 16, AttachResult::kBadGeometry},
        {offsetof(TableHeader, probe_lines_max), 4, 0, AttachResult::kBadGeometry},
        {offsetof(TableHeader, probe_lines_max), 4, ~0u, AttachResult::kBadGeometry},
        {offsetof(TableHeader, slot_count), 8, table_view_.slot_count() - 2, AttachResult::kBadGeometry},
        {offsetof(TableHeader, seeds_offset), 8, slots_end - 1, AttachResult::kBadGeometry},
        {offsetof(TableHeader, seeds_offset), 8, bytes, AttachResult::kBadGeometry},
        {offsetof(TableHeader, seeds_offset), 8, ~uint64_t{0}, AttachResult::kBadGeometry},
        {offsetof(TableHeader, seed_count), 8, 0, AttachResult::kBadGeometry},
        {offsetof(TableHeader, seed_count), 8, ~uint64_t{0}, AttachResult::kBadGeometry},
        {offsetof(TableHeader, policies_offset), 8, slots_end, AttachResult::kBadGeometry},
        {offsetof(TableHeader, policies_offset), 8, kPageBytes, AttachResult::kBadGeometry},
        {offsetof(TableHeader, policies_offset), 8, slots_end + 1, AttachResult::kBadGeometry},
        {offsetof(TableHeader, policies_offset), 8, bytes, AttachResult::kBadGeometry},
        {offsetof(TableHeader, policy_capacity), 8, 0, AttachResult::kBadGeometry},
        {offsetof(TableHeader, policy_capacity), 8, kHuge / 32, AttachResult::kBadGeometry},
        {offsetof(TableHeader, scopes_offset), 8, bytes + 1, AttachResult::kBadGeometry},
        {offsetof(TableHeader, scopes_bytes), 8, ~uint64_t{0}, AttachResult::kBadGeometry},
        {offsetof(TableHeader, details_offset), 8, kPageBytes, AttachResult::kBadGeometry},
        {offsetof(TableHeader, details_offset), 8, slots_end, AttachResult::kBadGeometry},
        {offsetof(TableHeader, details_offset), 8, ~uint64_t{15}, AttachResult::kBadGeometry},
        {offsetof(TableHeader, details_offset), 8, bytes - 8, AttachResult::kBadGeometry},
        {offsetof(TableHeader, details_bytes), 8, bytes, AttachResult::kBadGeometry},
        {offsetof(TableHeader, details_bytes), 8, ~uint64_t{0}, AttachResult::kBadGeometry},
    };
    for (const BadField& field : fields) {
        const AttachResult result = field.width == 8
                                        ? with(table_, field.offset, field.value)
                                        : with(table_, field.offset, static_cast<uint32_t>(field.value));
        EXPECT_EQ(result, field.expected) << "offset " << field.offset << " value " << field.value;
    }
    table_.resize(sizeof(TableHeader) - 1);
    EXPECT_EQ(check(), AttachResult::kTruncated);
}

TEST_F(AttachBytes, EachFieldOfTheCellsHasItsAnswer) {
    const uint64_t bytes = cells_.size();
    const uint64_t count = table_view_.slot_count();
    const BadField fields[] = {
        {offsetof(CellsHeader, magic), 8, kTableMagic, AttachResult::kBadMagic},
        {offsetof(CellsHeader, abi), 4, 0, AttachResult::kAbiMismatch},
        {offsetof(CellsHeader, layout_hash), 8, 1, AttachResult::kLayoutMismatch},
        {offsetof(CellsHeader, file_bytes), 8, bytes + kPageBytes, AttachResult::kTruncated},
        {offsetof(CellsHeader, file_bytes), 8, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, header_bytes), 4, 512, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, generation), 8, generation_ - 1, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, uid), 8, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, uid) + 8, 8, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, cells_offset), 8, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, cells_offset), 8, 256, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, cells_offset), 8, kPageBytes + 8, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, cells_offset), 8, ~uint64_t{63}, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, cell_count), 8, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, cell_count), 8, count + 2, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, cell_count), 8, kHuge, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, cell_stride), 4, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, cell_stride), 4, 24, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, cell_stride), 4, 64, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, shards), 4, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, shards), 4, 1000, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, shards), 4, ~0u, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, shard_stride), 8, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, shard_stride), 8, count * 8, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, shard_stride), 8, count * 16 + 8, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, shard_stride), 8, kHuge, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, allowed_offset), 4, 8, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, denied_offset), 4, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, meters_offset), 4, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, meter_words), 4, 1, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, dirty_offset), 8, kPageBytes, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, dirty_offset), 8, bytes, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, dirty_offset), 8, ~uint64_t{0}, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, dirty_bytes), 8, 1, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, dirty_bytes), 8, bytes, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, dirty_shift), 4, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, dirty_shift), 4, 64, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, totals_shards), 4, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, totals_shards), 4, 4000, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, totals_shards), 4, ~0u, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, totals_offset), 8, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, totals_offset), 8, 264, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, totals_offset), 8, kPageBytes, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, totals_offset), 8, ~uint64_t{63}, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, ring_offset), 8, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, ring_offset), 8, bytes, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, ring_offset), 8, ~uint64_t{63}, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, ring_count), 8, 0, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, ring_count), 8, 1000, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, ring_count), 8, 1 << 20, AttachResult::kBadGeometry},
        {offsetof(CellsHeader, ring_count), 8, uint64_t{1} << 57, AttachResult::kBadGeometry},
    };
    for (const BadField& field : fields) {
        const AttachResult result = field.width == 8
                                        ? with(cells_, field.offset, field.value)
                                        : with(cells_, field.offset, static_cast<uint32_t>(field.value));
        EXPECT_EQ(result, field.expected) << "offset " << field.offset << " value " << field.value;
    }
    cells_.resize(sizeof(CellsHeader) - 1);
    EXPECT_EQ(check(), AttachResult::kTruncated);
}

/// Every byte of the headers, several values each. What is accepted must be safe to use.
TEST_F(AttachBytes, NoByteOfAHeaderCrashesTheReader) {
    struct {
        std::vector<uint8_t>* bytes;
        size_t header_bytes;
    } const files[] = {
        {&control_, 128}, {&table_, offsetof(TableHeader, environments)}, {&cells_, sizeof(CellsHeader)}};
    size_t accepted = 0;
    size_t refused = 0;
    for (const auto& file : files) {
        for (size_t at = 0; at < file.header_bytes; ++at) {
            const uint8_t before = (*file.bytes)[at];
            for (const int change : {0x00, 0x01, 0x10, 0x3f, 0x7f, 0x80, 0xfe, 0xff}) {
                (*file.bytes)[at] = static_cast<uint8_t>(change);
                if (check() == AttachResult::kOk) {
                    ASSERT_NO_FATAL_FAILURE(use()) << "byte " << at << " = " << change;
                    ++accepted;
                } else {
                    ++refused;
                }
            }
            (*file.bytes)[at] = before;
        }
    }
    EXPECT_GT(refused, 1500u);  // 8 x about 270 bytes of geometry, less the values they have
    EXPECT_GT(accepted, 0u);    // seeds, counts, reserved bytes
    EXPECT_EQ(check(), AttachResult::kOk);
}

// -------------------------------------------------------------------------------------------------------
// real files

class AttachFiles : public testing::Test {
  protected:
    AttachResult attach() { return attach(instance_.attach_options()); }

    /// Attaches to all, as a client does, and lets go.
    static AttachResult attach(const AttachOptions& options) {
        ControlMapping control;
        AttachResult result = attach_control(options, &control);
        if (result != AttachResult::kOk) {
            EXPECT_EQ(control.control, nullptr);
            return result;
        }
        GenerationMapping generation;
        const uint32_t current = current_of(control.control->current_next.load());
        result = attach_generation(options, control, current, &generation);
        EXPECT_EQ(generation.table.base != nullptr, result == AttachResult::kOk);
        detach_generation(&generation);
        detach_control(&control);
        return result;
    }

    std::string table() { return instance_.file(numbered("table", instance_.current().number())); }
    std::string cells() { return instance_.file(numbered("cells", instance_.current().number())); }
    std::string control() { return instance_.file("control"); }

    /// Puts what `make` makes under the name instead of the file, tries, and puts the file back.
    template <typename Make>
    AttachResult replaced(const std::string& name, Make make) {
        const std::string aside = name + ".aside";
        EXPECT_EQ(rename(name.c_str(), aside.c_str()), 0);
        make(name.c_str(), aside.c_str());
        const AttachResult result = attach();
        std::filesystem::remove(name);
        EXPECT_EQ(rename(aside.c_str(), name.c_str()), 0);
        return result;
    }

    TestInstance instance_{{.capacity_keys = 10}};
};

TEST_F(AttachFiles, WholeInstanceAttachesAndLeavesNoDescriptor) {
    const size_t before = open_descriptors();
    ControlMapping control;
    ASSERT_EQ(attach_control(instance_.attach_options(), &control), AttachResult::kOk);
    GenerationMapping generation;
    const uint32_t current = instance_.current().number();
    ASSERT_EQ(attach_generation(instance_.attach_options(), control, current, &generation),
              AttachResult::kOk);
    EXPECT_EQ(open_descriptors(), before);
    EXPECT_EQ(generation.table.generation, current);
    EXPECT_NE(generation.cells.base, nullptr);
    struct stat status {};
    ASSERT_EQ(stat(this->control().c_str(), &status), 0);
    EXPECT_EQ(control.inode, status.st_ino);
    EXPECT_EQ(control.device, status.st_dev);
    detach_generation(&generation);
    detach_control(&control);
    EXPECT_EQ(generation.table.base, nullptr);
    EXPECT_EQ(control.control, nullptr);
    EXPECT_EQ(attach(), AttachResult::kOk);
    EXPECT_EQ(open_descriptors(), before);
}

TEST_F(AttachFiles, ATableOverTwoMebibytesIsMappedAtAHugePagesBoundary) {
    instance_.publish_new_generation(100000);
    ControlMapping control;
    ASSERT_EQ(attach_control(instance_.attach_options(), &control), AttachResult::kOk);
    GenerationMapping generation;
    ASSERT_EQ(
        attach_generation(instance_.attach_options(), control, instance_.current().number(), &generation),
        AttachResult::kOk);
    EXPECT_GT(generation.table.bytes, uint64_t{2} << 20);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(generation.table.base) % (uint64_t{2} << 20), 0u);
    detach_generation(&generation);
    detach_control(&control);
    EXPECT_TRUE(instance_.current().lock_unused()) << "all of it is unmapped";
}

TEST_F(AttachFiles, NothingThereIsWaiting) {
    EXPECT_EQ(attach({instance_.file("no-such-instance").c_str(), kAnyOwner}), AttachResult::kWaiting);
    ASSERT_EQ(unlink(control().c_str()), 0);
    EXPECT_EQ(attach(), AttachResult::kWaiting);
}

TEST_F(AttachFiles, OnlyADirectoryIsADirectory) {
    EXPECT_EQ(attach({control().c_str(), kAnyOwner}), AttachResult::kNotADirectory);
    EXPECT_EQ(attach({(control() + "/below").c_str(), kAnyOwner}), AttachResult::kNotADirectory);
    const std::string link = instance_.base() + "/link";
    ASSERT_EQ(symlink(instance_.path().c_str(), link.c_str()), 0);
    EXPECT_EQ(attach({link.c_str(), kAnyOwner}), AttachResult::kNotADirectory);
}

TEST_F(AttachFiles, OwnersMustBeTheExpectedOne) {
    ASSERT_EQ(geteuid(), 0u) << "this test gives files away: run it as root";
    EXPECT_EQ(attach({instance_.path().c_str(), 0}), AttachResult::kOk);
    EXPECT_EQ(attach({instance_.path().c_str(), 1}), AttachResult::kForeignOwner);
    for (const std::string& name : {control(), table(), cells()}) {
        ASSERT_EQ(chown(name.c_str(), kNobody, static_cast<gid_t>(-1)), 0);
        EXPECT_EQ(attach(), AttachResult::kForeignOwner) << name;
        ASSERT_EQ(chown(name.c_str(), 0, static_cast<gid_t>(-1)), 0);
    }
    ASSERT_EQ(chown(instance_.path().c_str(), kNobody, static_cast<gid_t>(-1)), 0);
    EXPECT_EQ(attach(), AttachResult::kForeignOwner) << "the files' owner differs from the directory's";
}

TEST_F(AttachFiles, ModesThatLetOthersWriteAreNotTrusted) {
    const auto try_mode = [&](const std::string& name, mode_t mode) {
        struct stat before {};
        EXPECT_EQ(stat(name.c_str(), &before), 0);
        EXPECT_EQ(chmod(name.c_str(), mode), 0);
        const AttachResult result = attach();
        EXPECT_EQ(chmod(name.c_str(), before.st_mode & 07777), 0);
        return result;
    };
    for (const std::string& name : {control(), table()}) {
        EXPECT_EQ(try_mode(name, 0660), AttachResult::kUnsafeMode) << name;
        EXPECT_EQ(try_mode(name, 0642), AttachResult::kUnsafeMode) << name;
        EXPECT_EQ(try_mode(name, 0644), AttachResult::kOk) << name;
    }
    EXPECT_EQ(try_mode(cells(), 0662), AttachResult::kUnsafeMode);
    EXPECT_EQ(try_mode(cells(), 0660), AttachResult::kOk) << "clients count there";
    EXPECT_EQ(try_mode(instance_.path(), 0770), AttachResult::kUnsafeMode);
    EXPECT_EQ(try_mode(instance_.path(), 0752), AttachResult::kUnsafeMode);
}

TEST_F(AttachFiles, LinksPipesAndDirectoriesAreNoSegments) {
    for (const std::string& name : {control(), table(), cells()}) {
        const auto link = [](const char* path, const char* aside) { ASSERT_EQ(symlink(aside, path), 0); };
        const auto pipe = [](const char* path, const char*) { ASSERT_EQ(mkfifo(path, 0640), 0); };
        const auto directory = [](const char* path, const char*) { ASSERT_EQ(mkdir(path, 0750), 0); };
        EXPECT_EQ(replaced(name, link), AttachResult::kNotARegularFile) << name;
        EXPECT_EQ(replaced(name, pipe), AttachResult::kNotARegularFile) << name << " (and it did not block)";
        EXPECT_EQ(replaced(name, directory), AttachResult::kNotARegularFile) << name;
    }
    EXPECT_EQ(attach(), AttachResult::kOk);
}

TEST_F(AttachFiles, ShortenedFilesAreTruncatedNotASignal) {
    for (const std::string& name : {control(), table(), cells()}) {
        const auto whole = std::filesystem::file_size(name);
        for (const uintmax_t bytes : {uintmax_t{0}, uintmax_t{1}, uintmax_t{100}, whole - 1}) {
            const auto shortened = [bytes](const char* path, const char* aside) {
                std::filesystem::copy_file(aside, path);
                ASSERT_EQ(chmod(path, 0640), 0);
                ASSERT_EQ(truncate(path, static_cast<off_t>(bytes)), 0);
            };
            EXPECT_EQ(replaced(name, shortened), AttachResult::kTruncated) << name << " to " << bytes;
        }
    }
}

TEST_F(AttachFiles, AnotherAbiIsToldAsSuch) {
    const auto edited = [](size_t offset) {
        return [offset](const char* path, const char* aside) {
            std::filesystem::copy_file(aside, path);
            ASSERT_EQ(chmod(path, 0640), 0);
            const int fd = open(path, O_WRONLY | O_CLOEXEC);
            const uint32_t abi = kAbi + 1;
            ASSERT_EQ(pwrite(fd, &abi, sizeof abi, static_cast<off_t>(offset)), 4);
            close(fd);
        };
    };
    for (const std::string& name : {control(), table(), cells()}) {
        EXPECT_EQ(replaced(name, edited(8)), AttachResult::kAbiMismatch) << name;
        EXPECT_EQ(replaced(name, edited(0)), AttachResult::kBadMagic) << name;
    }
    EXPECT_EQ(replaced(control(), edited(offsetof(Control, layout_hash))), AttachResult::kLayoutMismatch);
}

// What the daemon would do that named the other control, and was killed before it could mark this one.
TEST_F(AttachFiles, AControlThatHasLostItsNameIsNotBelieved) {
    ControlMapping control;
    ASSERT_EQ(attach_control(instance_.attach_options(), &control), AttachResult::kOk);
    const std::string another = this->control() + ".another";
    std::filesystem::copy_file(this->control(), another);
    std::filesystem::rename(another, this->control());
    GenerationMapping generation;
    const uint32_t current = instance_.current().number();
    EXPECT_EQ(attach_generation(instance_.attach_options(), control, current, &generation),
              AttachResult::kSuperseded);
    detach_generation(&generation);
    EXPECT_TRUE(instance_.current().lock_unused()) << "nothing is mapped";
    detach_control(&control);
}

TEST_F(AttachFiles, AGenerationThatGoesAwaySendsTheClientBack) {
    ControlMapping control;
    ASSERT_EQ(attach_control(instance_.attach_options(), &control), AttachResult::kOk);
    const auto generation = [&](uint32_t number) {
        GenerationMapping mapping;
        const AttachResult result = attach_generation(instance_.attach_options(), control, number, &mapping);
        detach_generation(&mapping);
        return result;
    };
    const uint32_t old = instance_.current().number();
    EXPECT_EQ(generation(old + 1000), AttachResult::kSuperseded) << "no such file";
    EXPECT_EQ(generation(old), AttachResult::kOk);

    const uint32_t next = instance_.publish_new_generation();
    EXPECT_EQ(generation(old), AttachResult::kSuperseded)
        << "neither current nor next, though its files stand";
    EXPECT_EQ(generation(next), AttachResult::kOk);

    auto built = instance_.build_generation();
    EXPECT_EQ(generation(built->number()), AttachResult::kSuperseded) << "complete, but not announced";
    instance_.control().announce(built->number());
    EXPECT_EQ(generation(built->number()), AttachResult::kOk) << "next may be mapped";
    EXPECT_EQ(generation(next), AttachResult::kOk) << "and current still";
    EXPECT_TRUE(built->lock_unused());
    EXPECT_EQ(generation(built->number()), AttachResult::kSuperseded) << "the daemon harvests it";

    EXPECT_EQ(unlink(cells().c_str()), 0);
    EXPECT_EQ(generation(next), AttachResult::kSuperseded) << "cells go last, so the table went too";
    instance_.control().set_state(ControlState::kSuperseded);
    EXPECT_EQ(generation(next), AttachResult::kSuperseded);
    detach_control(&control);
}

TEST_F(AttachFiles, WithoutRightsItIsNotPermitted) {
    ASSERT_EQ(geteuid(), 0u) << "this test becomes another user: run it as root";
    const auto as_nobody = [&](gid_t group) {
        return in_child([&] {
            if (setgroups(0, nullptr) != 0 || setgid(group) != 0 || setuid(kNobody) != 0) {
                return 98;
            }
            return static_cast<int>(attach());
        });
    };
    const auto expect = [](AttachResult result) { return static_cast<int>(result); };
    EXPECT_EQ(as_nobody(kNobody), expect(AttachResult::kNotPermitted)) << "not in the directory's group";
    ASSERT_EQ(chown(instance_.path().c_str(), static_cast<uid_t>(-1), kClientsGroup), 0);
    EXPECT_EQ(as_nobody(kClientsGroup), expect(AttachResult::kNotPermitted)) << "control is another group's";
    ASSERT_EQ(chown(control().c_str(), static_cast<uid_t>(-1), kClientsGroup), 0);
    EXPECT_EQ(as_nobody(kClientsGroup), expect(AttachResult::kNotPermitted))
        << "the table is another group's";
    ASSERT_EQ(chown(table().c_str(), static_cast<uid_t>(-1), kClientsGroup), 0);
    EXPECT_EQ(as_nobody(kClientsGroup), expect(AttachResult::kOk))
        << "cells that may not be written are no error";
    EXPECT_EQ(as_nobody(kNobody), expect(AttachResult::kNotPermitted));
}

TEST_F(AttachFiles, CellsThatMayNotBeWrittenAreLeftOut) {
    ASSERT_EQ(geteuid(), 0u) << "this test becomes another user: run it as root";
    for (const std::string& name : {instance_.path(), control(), table(), cells()}) {
        ASSERT_EQ(chown(name.c_str(), static_cast<uid_t>(-1), kClientsGroup), 0);
    }
    const auto cells_mapped = [&] {
        return in_child([&] {
            if (setgroups(0, nullptr) != 0 || setgid(kClientsGroup) != 0 || setuid(kNobody) != 0) {
                return 98;
            }
            ControlMapping control;
            GenerationMapping generation;
            if (attach_control(instance_.attach_options(), &control) != AttachResult::kOk ||
                attach_generation(instance_.attach_options(), control, instance_.current().number(),
                                  &generation) != AttachResult::kOk) {
                return 97;
            }
            return generation.cells.base != nullptr ? 1 : 0;
        });
    };
    EXPECT_EQ(cells_mapped(), 1);
    ASSERT_EQ(chmod(cells().c_str(), 0640), 0);
    EXPECT_EQ(cells_mapped(), 0);
}

TEST_F(AttachFiles, WithoutDescriptorsItSaysSoWhicheverIsTheLast) {
    const int answers = in_child([&] {
        // From none free to enough: each count must give 'no descriptors', then success, nothing else.
        int highest = 0;
        for (int fd = 0; fd < 1024; ++fd) {
            highest = fcntl(fd, F_GETFD) >= 0 ? fd : highest;
        }
        while (const int filled = dup(0)) {  // no holes below
            if (filled > highest) {
                close(filled);
                break;
            }
        }
        bool attached = false;
        for (rlim_t free = 0; free < 8; ++free) {
            const rlim_t limit = static_cast<rlim_t>(highest) + 1 + free;
            const rlimit descriptors{limit, 20000};
            if (setrlimit(RLIMIT_NOFILE, &descriptors) != 0) {
                return 98;
            }
            const AttachResult result = attach();
            if (result == AttachResult::kOk) {
                attached = true;
            } else if (attached || result != AttachResult::kNoDescriptors) {
                return 50 + static_cast<int>(result);
            } else if (free >= 3) {
                return 97;  // the directory, the table and the cells are all it may need at once
            }
        }
        return attached ? 0 : 96;
    });
    EXPECT_EQ(answers, 0);
}

TEST_F(AttachFiles, WhoOnlyLooksMapsASupersededGenerationAndHoldsNothing) {
    const uint32_t old = instance_.current().number();
    count_code(instance_.current().cells(), 1, 0, 7);
    instance_.publish_new_generation();
    GenerationMapping seen;
    ASSERT_EQ(observe_generation(instance_.attach_options(), old, &seen), AttachResult::kOk);
    EXPECT_EQ(sum_code(seen.cells, 1), 7u);
    EXPECT_EQ(instance_.drop_unused(), 1u) << "a look must not keep the daemon from a generation's end";
    EXPECT_EQ(sum_code(seen.cells, 1), 7u) << "what was counted last stays mapped";
    detach_generation(&seen);
    EXPECT_EQ(observe_generation(instance_.attach_options(), old, &seen), AttachResult::kSuperseded);
    EXPECT_EQ(seen.table.base, nullptr);
}

TEST_F(AttachFiles, WhoOnlyLooksCannotWrite) {
    GenerationMapping seen;
    ASSERT_EQ(observe_generation(instance_.attach_options(), instance_.current().number(), &seen),
              AttachResult::kOk);
    EXPECT_DEATH(count_code(seen.cells, 1, 0), "");
    detach_generation(&seen);
}

TEST_F(AttachFiles, WhoOnlyLooksChecksTheFilesAsOthersDo) {
    const AttachOptions options = instance_.attach_options();
    const uint32_t number = instance_.current().number();
    GenerationMapping seen;
    ASSERT_EQ(truncate(cells().c_str(), 8192), 0);
    EXPECT_EQ(observe_generation(options, number, &seen), AttachResult::kTruncated);
    ASSERT_EQ(unlink(cells().c_str()), 0);
    EXPECT_EQ(observe_generation(options, number, &seen), AttachResult::kSuperseded);
    EXPECT_EQ(seen.table.base, nullptr);
}

}  // namespace
