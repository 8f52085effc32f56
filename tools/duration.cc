#include "tools/duration.h"

#include <charconv>
#include <string>

#include "source/key_row.h"
#include "source/rfc3339.h"

namespace apikeyd {

std::optional<int64_t> parse_duration_s(std::string_view text) {
    int64_t count = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, count);
    if (error != std::errc{} || count < 0) {
        return std::nullopt;
    }
    const std::string_view unit(stop, static_cast<size_t>(end - stop));
    const int64_t unit_s = unit == "d"                                   ? 86400
                           : unit == "h"                                 ? 3600
                           : unit == "m"                                 ? 60
                           : unit == "s" || (unit.empty() && count == 0) ? 1
                                                                         : 0;
    if (unit_s == 0 || count > kDurationMax_s / unit_s) {
        return std::nullopt;
    }
    return count * unit_s;
}

Result<int64_t> parse_expiry(std::string_view text, int64_t now_s) {
    std::optional<int64_t> moment_s = parse_rfc3339(text);
    if (const auto duration_s = parse_duration_s(text); !moment_s && duration_s) {
        moment_s = now_s + *duration_s;
    }
    if (!moment_s) {
        return fail("want a time as 2027-12-01T00:00:00Z, or a duration from now as 90d, 24h, 30m or 15s");
    }
    if (*moment_s <= now_s) {
        return fail("want a time in the future");
    }
    if (*moment_s > kExpiresMax_s) {
        return fail("want a time before " + format_rfc3339(kExpiresMax_s + 1));
    }
    return *moment_s;
}

}  // namespace apikeyd
