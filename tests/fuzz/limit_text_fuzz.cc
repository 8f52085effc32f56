// Limits as text: what is read is what the words say, what is written is read as the same, and what fits a
// meter by check_limit() fits it. The input is a text, and as numbers the parts of another one.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "source/limit_text.h"

namespace {

using namespace apikeyd;

constexpr std::pair<const char*, uint32_t> kUnits[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}};
constexpr std::pair<const char*, LimitForm> kPeriods[] = {{"hour", LimitForm::kQuotaPerHour},
                                                          {"day", LimitForm::kQuotaPerDay},
                                                          {"month", LimitForm::kQuotaPerMonth}};
constexpr uint64_t kRequestsMax = 1'000'000'000;
constexpr uint64_t kQuotaMax = 10'000'000'000;

void require(bool condition) {
    if (!condition) {
        abort();  // libFuzzer keeps the input
    }
}

/// Digits; nothing that is more than any limit may say.
std::optional<uint64_t> number_of(const std::string& text) {
    uint64_t number = 0;
    for (const char c : text) {
        if (c < '0' || c > '9' || number > kQuotaMax) {
            return std::nullopt;
        }
        number = number * 10 + static_cast<uint64_t>(c - '0');
    }
    return text.empty() ? std::nullopt : std::optional(number);
}

LimitRow rate_of(uint64_t requests, uint32_t seconds) {
    LimitRow row;
    row.requests = requests;
    row.rate_seconds = seconds;
    row.burst = static_cast<uint32_t>(requests);
    return row;
}

std::optional<LimitRow> reference_rate(const std::string& text) {
    for (const auto& [name, seconds] : kUnits) {
        const std::string end = std::string("/") + name;
        if (text.size() > end.size() && text.ends_with(end)) {
            const auto requests = number_of(text.substr(0, text.size() - end.size()));
            if (requests && *requests >= 1 && *requests <= kRequestsMax) {
                return rate_of(*requests, seconds);
            }
        }
    }
    return std::nullopt;
}

std::optional<LimitRow> reference_quota(const std::string& text) {
    for (const auto& [name, form] : kPeriods) {
        const std::string end = std::string("/") + name;
        if (text.size() > end.size() && text.ends_with(end)) {
            const auto requests = number_of(text.substr(0, text.size() - end.size()));
            if (requests && *requests <= kQuotaMax) {
                LimitRow row;
                row.form = form;
                row.requests = *requests;
                return row;
            }
        }
    }
    return std::nullopt;
}

/// A rate's burst takes at most two years to come back: 2^53 units of 8 ns. No more than 1250000 come in a
/// second.
bool reference_fits(const LimitRow& row) {
    __extension__ using Wide = unsigned __int128;
    if (row.form != LimitForm::kRate) {
        return true;
    }
    const Wide units = Wide{row.rate_seconds} * 125'000'000;
    const Wide interval = (units + row.requests - 1) / row.requests;
    return row.requests <= uint64_t{1'250'000} * row.rate_seconds && interval * row.burst <= Wide{1} << 53;
}

void check(const std::string& text, Result<void> (*parse)(std::string_view, LimitRow&),
           const std::optional<LimitRow>& expected) {
    LimitRow row;
    const Result<void> parsed = parse(text, row);
    require(parsed.has_value() == expected.has_value());
    if (!parsed) {
        require(!parsed.error().message.empty());
        return;
    }
    require(row == *expected);
    LimitRow again;
    require(parse(format_limit(row), again) && again == row);
    require(check_limit(row).has_value() == reference_fits(row));
}

void check_burst(const std::string& text) {
    const auto number = number_of(text);
    LimitRow row = rate_of(7, 3600);
    const Result<void> parsed = parse_burst(text, row);
    require(parsed.has_value() == (number && *number >= 1 && *number <= kRequestsMax));
    if (parsed) {
        require(row.burst == *number && check_limit(row).has_value() == reference_fits(row));
    }
}

void check_range(const std::string& text) {
    const auto range = parse_address_range(text);
    if (!range) {
        require(!range.error().message.empty());
        return;
    }
    require(range->prefix_bits <= 128);
    for (unsigned bit = range->prefix_bits; bit < 128; ++bit) {
        require((range->address[bit / 8] >> (7 - bit % 8) & 1) == 0);
    }
    const auto again = parse_address_range(format_address_range(*range));
    require(again && *again == *range);
}

void check_text(const std::string& text) {
    check(text, parse_rate, reference_rate(text));
    check(text, parse_quota, reference_quota(text));
    check_burst(text);
    check_range(text);
}

template <typename Value>
Value take(const uint8_t*& data, size_t& size) {
    Value value{};
    const size_t bytes = size < sizeof value ? size : sizeof value;
    std::memcpy(&value, data, bytes);
    data += bytes;
    size -= bytes;
    return value;
}

/// What random bytes would hardly spell.
void check_numbers(const uint8_t* data, size_t size) {
    const auto how = take<uint8_t>(data, size);
    const auto number = take<uint64_t>(data, size) >> how % 64;
    check_text(std::to_string(number));
    check_text(std::to_string(number) + "/" + kUnits[how % 4].first);
    check_text(std::to_string(number) + "/" + kPeriods[how % 3].first);
    LimitRow row = rate_of(1 + number % kRequestsMax, kUnits[how % 4].second);
    row.burst = take<uint32_t>(data, size);
    require(check_limit(row).has_value() == reference_fits(row));
    AddressRangeRow range;
    range.prefix_bits = static_cast<uint8_t>((how & 1) != 0 ? 96 + number % 33 : number % 129);
    if ((how & 1) != 0) {
        range.address[10] = range.address[11] = 0xff;
    }
    for (unsigned bit = (how & 1) != 0 ? 96 : 0; bit < range.prefix_bits; ++bit) {
        range.address[bit / 8] |= static_cast<uint8_t>((number >> bit % 61 & 1) << (7 - bit % 8));
    }
    const auto again = parse_address_range(format_address_range(range));
    require(again && *again == range);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    check_text(std::string(reinterpret_cast<const char*>(data), size));
    check_numbers(data, size);
    return 0;
}
