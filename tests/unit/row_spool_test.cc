// Rows come out of the spool as they went in, in their order, but those left out.

#include "core/row_spool.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/table_rows.h"
#include "publisher_fixture.h"

namespace apikeyd {
namespace {

KeyRow full_row(uint64_t number, const std::shared_ptr<const KeyTerms>& terms) {
    KeyRow row = numbered_row(number);
    row.foreign = number % 2 == 1;
    row.state = static_cast<KeyState>(number % 3);
    row.environment = number % 2 == 1 ? "" : "live";
    row.owner = std::string(number % (kOwnerBytesMax + 1), 'o');
    row.name = std::string((number * 7) % (kNameBytesMax + 1), 'n');
    row.metadata = std::string((number * 101) % (kMetadataBytesMax + 1), 'm');
    row.created_s = static_cast<int64_t>(number) * 1000;
    row.expires_s = number % 4 == 0 ? std::nullopt : std::optional(static_cast<int64_t>(number));
    row.terms = number % 5 == 0 ? terms : nullptr;
    return row;
}

class RowSpoolTest : public testing::Test {
  protected:
    RowSpoolTest() : fd_(open(directory_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {}

    static std::vector<KeyRow> rows_of(const RowSpool& spool) {
        std::vector<KeyRow> rows;
        KeyRow row;
        for (RowSpool::Cursor cursor(spool); cursor.next(row);) {
            rows.push_back(row);
        }
        return rows;
    }

    TemporaryDirectory directory_;
    OwnedFd fd_;
};

TEST_F(RowSpoolTest, RowsComeBackAsTheyWere) {
    KeyTerms said;
    said.plan = "free";
    const auto terms = std::make_shared<const KeyTerms>(said);
    RowSpool spool(fd_.get());
    constexpr uint64_t kRows = 30000;  // some 70 MB: several files
    for (uint64_t i = 0; i < kRows; ++i) {
        const auto kept = spool.append(full_row(i, terms));
        ASSERT_TRUE(kept) << kept.error().message;
    }
    EXPECT_EQ(spool.size(), kRows);
    EXPECT_TRUE(std::filesystem::is_empty(directory_.path()));
    KeyRow row;
    RowSpool::Cursor cursor(spool);
    for (uint64_t i = 0; i < kRows; ++i) {
        ASSERT_TRUE(cursor.next(row)) << i;
        const KeyRow expected = full_row(i, terms);
        ASSERT_EQ(row, expected) << i;
        ASSERT_EQ(row.terms, expected.terms) << i;  // shared, not equal
    }
    EXPECT_FALSE(cursor.next(row));
    EXPECT_FALSE(cursor.next(row));
}

TEST_F(RowSpoolTest, WhatIsLeftOutDoesNotCome) {
    RowSpool spool(fd_.get());
    for (uint64_t i = 0; i < 10; ++i) {
        ASSERT_TRUE(spool.append(numbered_row(i)));
    }
    spool.leave_out(numbered_row(3).id);
    spool.leave_out(row_digest_bytes(numbered_row(7)));
    spool.leave_out("of no row");
    std::vector<KeyRow> expected;
    for (const uint64_t i : {0, 1, 2, 4, 5, 6, 8, 9}) {
        expected.push_back(numbered_row(i));
    }
    EXPECT_EQ(rows_of(spool), expected);
}

TEST_F(RowSpoolTest, WithoutRoomNothingIsAddedAndNothingLost) {
    RowSpool spool(-1);
    uint64_t kept = 0;
    while (spool.append(numbered_row(kept))) {
        ASSERT_LT(++kept, 100000u) << "there is no directory to keep them in";
    }
    EXPECT_GT(kept, 100u);  // those that need none
    EXPECT_EQ(spool.size(), kept);
    EXPECT_EQ(rows_of(spool).size(), kept);
    EXPECT_FALSE(spool.append(numbered_row(kept)));
}

}  // namespace
}  // namespace apikeyd
