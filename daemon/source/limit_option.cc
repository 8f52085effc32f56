#include "source/limit_option.h"

#include <set>

#include "source/limit_text.h"
#include "source/yaml_events.h"

namespace apikeyd {

namespace {

/// Takes the part before the next `mark` off `text`; `more`: there was one.
std::string_view cut(std::string_view& text, char mark, bool* more) {
    const size_t at = text.find(mark);
    *more = at != std::string_view::npos;
    const std::string_view part = text.substr(0, at);
    text.remove_prefix(*more ? at + 1 : text.size());
    return part;
}

/// `given`: the words before it.
Result<void> read_word(std::string_view word, LimitRow& limit, std::set<std::string_view>& given) {
    if (!given.insert(word.substr(0, word.find('='))).second) {
        return fail(yaml_quote(word) + " comes twice (want each word once)");
    }
    if (word == "shadow") {
        limit.shadow = true;
        return {};
    }
    constexpr std::string_view kBurst = "burst=";
    if (!word.starts_with(kBurst)) {
        return fail(yaml_quote(word) + " is neither burst=NUMBER nor shadow");
    }
    word.remove_prefix(kBurst.size());
    if (limit.form != LimitForm::kRate) {
        return fail("burst: a quota has none (want it with a rate)");
    }
    const Result<void> burst = parse_burst(word, limit);
    return burst ? burst : fail("burst: " + yaml_quote(word) + " " + burst.error().message);
}

}  // namespace

Result<LimitRow> parse_limit_option(std::string_view text) {
    LimitRow limit;
    bool more = false;
    limit.name = cut(text, '=', &more);
    if (const auto fault = limit_name_fault(limit.name)) {
        return fail(yaml_quote(limit.name) + " is no limit's name (" + *fault +
                    "), as in burst=100/s,burst=200 or monthly=1000000/month");
    }
    const std::string_view figure = cut(text, ',', &more);
    Result<void> read = parse_figure(figure, limit);
    if (!read) {
        return fail(limit.name + ": " + yaml_quote(figure) + " " + read.error().message);
    }
    std::set<std::string_view> given;
    while (read && more) {
        read = read_word(cut(text, ',', &more), limit, given);
    }
    if (read) {
        read = check_limit(limit);
    }
    return read ? Result<LimitRow>(limit) : fail(limit.name + ": " + read.error().message);
}

std::string format_limit_option(const LimitRow& limit) {
    const bool own_burst = limit.form == LimitForm::kRate && limit.burst != limit.requests;
    return limit.name + "=" + format_limit(limit) +
           (own_burst ? ",burst=" + std::to_string(limit.burst) : "") + (limit.shadow ? ",shadow" : "");
}

}  // namespace apikeyd
