#include "postgres/copy_reader.h"

namespace apikeyd {

CopyReader::Outcome CopyReader::take(std::string_view piece, const PostgresConnection::CopyRow& row) {
    if (!kept_.empty()) {
        kept_.append(piece);
        piece = kept_;
    }
    rest_ = piece;
    Outcome outcome = Outcome::kMore;
    while (outcome == Outcome::kMore) {
        const std::string_view before = rest_;
        const Read read = in_header_ ? read_header() : read_row();
        if (read == Read::kShort) {
            rest_ = before;
            break;
        }
        if (read == Read::kDamaged) {
            outcome = Outcome::kDamaged;
        } else if (read == Read::kRow && !row(fields_)) {
            outcome = Outcome::kEnough;
        }
    }
    if (kept_.empty()) {
        kept_.assign(rest_);
    } else {
        kept_.erase(0, kept_.size() - rest_.size());
    }
    return outcome;
}

std::optional<std::string_view> CopyReader::next(size_t length) {
    if (rest_.size() < length) {
        return std::nullopt;
    }
    const std::string_view bytes = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return bytes;
}

CopyReader::Read CopyReader::read_header() {
    using namespace std::string_view_literals;
    constexpr std::string_view kSignature = "PGCOPY\n\377\r\n\0"sv;
    constexpr int32_t kCriticalFlags = static_cast<int32_t>(0xFFFF0000);
    const std::optional<std::string_view> signature = next(kSignature.size());
    const auto flags = copied_int<int32_t>(next(sizeof(int32_t)));
    const auto extension = copied_int<int32_t>(next(sizeof(int32_t)));
    if (!signature || !flags || !extension) {
        return Read::kShort;
    }
    if (*signature != kSignature || (*flags & kCriticalFlags) != 0 || *extension < 0) {
        return Read::kDamaged;
    }
    if (!next(static_cast<size_t>(*extension))) {
        return Read::kShort;
    }
    in_header_ = false;
    return Read::kHeader;
}

CopyReader::Read CopyReader::read_row() {
    if (ended_) {
        return rest_.empty() ? Read::kShort : Read::kDamaged;
    }
    const auto count = copied_int<int16_t>(next(sizeof(int16_t)));
    if (!count) {
        return Read::kShort;
    }
    if (*count == -1) {
        ended_ = true;
        return Read::kEnd;
    }
    if (*count < 0 || static_cast<size_t>(*count) != fields_.size()) {
        return Read::kDamaged;
    }
    for (std::optional<std::string_view>& field : fields_) {
        const auto length = copied_int<int32_t>(next(sizeof(int32_t)));
        if (!length) {
            return Read::kShort;
        }
        if (*length < -1) {
            return Read::kDamaged;
        }
        field = *length == -1 ? std::nullopt : next(static_cast<size_t>(*length));
        if (*length != -1 && !field) {
            return Read::kShort;
        }
    }
    return Read::kRow;
}

}  // namespace apikeyd
