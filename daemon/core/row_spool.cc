#include "core/row_spool.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/table_rows.h"

namespace apikeyd {

namespace {

/// Few sets that people edit are larger, and few changes of others.
constexpr size_t kFirstBytes = size_t{1} << 20;
/// Each file as large as a half of those before: few of them, and little of them empty.
constexpr uint64_t kFileBytesMin = uint64_t{1} << 20;
constexpr uint64_t kFileBytesMax = uint64_t{256} << 20;
constexpr char kFileName[] = "build.rows";

/// What a packed row begins with; its texts follow, in this order.
struct Head {
    std::array<uint8_t, 32> digest;
    int64_t created_s;
    int64_t expires_s;
    uint32_t terms;
    uint16_t metadata_bytes;
    uint8_t owner_bytes;
    uint8_t name_bytes;
    uint8_t environment_bytes;
    uint8_t id_bytes;
    KeyState state;
    bool foreign;
    bool expires;
};
static_assert(kMetadataBytesMax <= UINT16_MAX && kNameBytesMax <= UINT8_MAX);
static_assert(kOwnerBytesMax <= UINT8_MAX && kEnvironmentBytesMax <= UINT8_MAX && kKeyIdLength <= UINT8_MAX);
static_assert(sizeof(Head) + kKeyIdLength + kEnvironmentBytesMax + kOwnerBytesMax + kNameBytesMax +
                  kMetadataBytesMax <=
              kFirstBytes);

size_t packed_bytes(const KeyRow& row) {
    return sizeof(Head) + row.id.size() + row.environment.size() + row.owner.size() + row.name.size() +
           row.metadata.size();
}

}  // namespace

Result<void> RowSpool::make_chunk() {
    if (chunks_.empty()) {
        first_ = std::make_unique_for_overwrite<uint8_t[]>(kFirstBytes);
        chunks_.push_back({first_.get(), kFirstBytes, 0});
        return {};
    }
    uint64_t held = kFirstBytes;
    for (const apikey::shm::Segment& file : files_) {
        held += file.bytes();
    }
    const uint64_t bytes = std::clamp(held / 2, kFileBytesMin, kFileBytesMax);
    struct statvfs system {};
    if (fstatvfs(directory_fd_, &system) == 0 &&
        uint64_t{system.f_bavail} * system.f_frsize < held + 2 * bytes) {
        return fail("not enough memory where the table is made: " + std::to_string(size_) + " rows take " +
                    std::to_string(held >> 10) + " KiB, and it will take as much again; " +
                    std::to_string(uint64_t{system.f_bavail} * system.f_frsize >> 10) + " KiB are free");
    }
    unlinkat(directory_fd_, kFileName, 0);  // of a daemon that was killed between the two calls
    auto file = apikey::shm::Segment::create(directory_fd_, kFileName, bytes, 0600, static_cast<gid_t>(-1));
    if (!file) {
        return tl::unexpected(file.error());
    }
    unlinkat(directory_fd_, kFileName, 0);
    files_.push_back(*std::move(file));
    chunks_.push_back({files_.back().data(), bytes, 0});
    return {};
}

uint32_t RowSpool::number_of(const std::shared_ptr<const KeyTerms>& terms) {
    if (terms == nullptr) {
        return 0;
    }
    const auto [known, is_new] = numbers_.emplace(terms.get(), static_cast<uint32_t>(terms_.size()));
    if (is_new) {
        terms_.push_back(terms);
    }
    return known->second;
}

Result<void> RowSpool::append(const KeyRow& row) {
    const size_t bytes = packed_bytes(row);
    if (chunks_.empty() || chunks_.back().bytes - chunks_.back().used < bytes) {
        if (Result<void> made = make_chunk(); !made) {
            return made;
        }
    }
    const Head head{.digest = row.digest,
                    .created_s = row.created_s,
                    .expires_s = row.expires_s.value_or(0),
                    .terms = number_of(row.terms),
                    .metadata_bytes = static_cast<uint16_t>(row.metadata.size()),
                    .owner_bytes = static_cast<uint8_t>(row.owner.size()),
                    .name_bytes = static_cast<uint8_t>(row.name.size()),
                    .environment_bytes = static_cast<uint8_t>(row.environment.size()),
                    .id_bytes = static_cast<uint8_t>(row.id.size()),
                    .state = row.state,
                    .foreign = row.foreign,
                    .expires = row.expires_s.has_value()};
    Chunk& chunk = chunks_.back();
    uint8_t* to = chunk.base + chunk.used;
    std::memcpy(to, &head, sizeof head);
    to += sizeof head;
    for (const std::string* text : {&row.id, &row.environment, &row.owner, &row.name, &row.metadata}) {
        std::memcpy(to, text->data(), text->size());
        to += text->size();
    }
    chunk.used += bytes;
    ++size_;
    return {};
}

void RowSpool::unpack(const uint8_t* from, KeyRow& row) const {
    Head head;
    std::memcpy(&head, from, sizeof head);
    row.digest = head.digest;
    row.created_s = head.created_s;
    row.expires_s = head.expires ? std::optional(head.expires_s) : std::nullopt;
    row.state = head.state;
    row.foreign = head.foreign;
    row.terms = terms_[head.terms];
    const char* text = reinterpret_cast<const char*>(from + sizeof head);
    const auto take = [&text](std::string& to, size_t bytes) {
        to.assign(text, bytes);
        text += bytes;
    };
    take(row.id, head.id_bytes);
    take(row.environment, head.environment_bytes);
    take(row.owner, head.owner_bytes);
    take(row.name, head.name_bytes);
    take(row.metadata, head.metadata_bytes);
}

bool RowSpool::is_left_out(const KeyRow& row) const {
    return !left_out_.empty() &&
           (left_out_.contains(row.id) || left_out_.contains(std::string(row_digest_bytes(row))));
}

bool RowSpool::Cursor::next(KeyRow& row) {
    for (; chunk_ < rows_->chunks_.size(); ++chunk_, at_ = 0) {
        while (at_ < rows_->chunks_[chunk_].used) {
            rows_->unpack(rows_->chunks_[chunk_].base + at_, row);
            at_ += packed_bytes(row);
            if (!rows_->is_left_out(row)) {
                return true;
            }
        }
    }
    return false;
}

}  // namespace apikeyd
