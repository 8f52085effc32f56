#include "tools/top/layout.h"

#include <apikey/apikey.h>
#include <locale.h>
#include <wchar.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/utf8.h"
#include "source/rfc3339.h"

namespace apikeyd::top {

namespace {

/// Columns of a character; -1 for one that must not reach a terminal.
int columns_of(char32_t character) {
    if (misleads(character)) {
        return -1;
    }
    // glibc knows widths by locale; this one is built in, and the caller's stays as it is.
    static const locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    const locale_t before = uselocale(utf8);
    const int columns = wcwidth(static_cast<wchar_t>(character));
    uselocale(before);
    return columns;
}

std::string right(const std::string& text, size_t width) {
    return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

std::string count_text(uint64_t count) {
    return count < 100'000'000 ? std::to_string(count) : rate_text(static_cast<double>(count));
}

std::string percent(uint64_t part, uint64_t whole) {
    const uint64_t share = whole != 0 ? part * 100 / whole : 0;
    return std::to_string(share) + '%';
}

std::string ago(uint64_t then_ns, uint64_t now_ns) {
    return then_ns == 0 ? "never" : duration_text(age_ms(then_ns, now_ns)) + " ago";
}

/// Lines of one width.
class Page {
  public:
    explicit Page(size_t width) : width_(width) {}

    /// Spans one behind the other, cut at the width.
    void add(const Line& line) {
        Line cut;
        size_t left = width_;
        for (const Span& span : line) {
            const std::string shown = fit(span.text, std::min(left, width_of(span.text)));
            left -= std::min(left, width_of(span.text));
            if (!shown.empty()) {
                cut.push_back({shown, span.style});
            }
        }
        lines_.push_back(std::move(cut));
    }
    void head(const std::string& text) { add({{fit(text, width_), Style::kHead}}); }
    std::vector<Line>& lines() { return lines_; }

  private:
    static size_t width_of(std::string_view text) {
        size_t width = 0;
        while (!text.empty()) {
            char32_t character = 0;
            const size_t length = utf8_sequence(text, character);
            const int columns = length != 0 ? columns_of(character) : -1;
            width += columns < 0 ? 1 : static_cast<size_t>(columns);
            text.remove_prefix(std::max<size_t>(length, 1));
        }
        return width;
    }
    size_t width_;
    std::vector<Line> lines_;
};

void add_daemon(Page& page, const View& view) {
    const Health& health = view.look.health;
    const uint64_t now_ns = view.look.realtime_ns;
    const std::string word = daemon_word(view.look);
    const bool up = word == "serving" || word == "starting";
    const std::string pid = up ? "  pid " + std::to_string(health.pid) + "  up " +
                                     duration_text(age_ms(health.started_ns, now_ns))
                               : "";
    page.add({{"daemon "},
              {word, up ? Style::kGood : Style::kBad},
              {"  heartbeat " + ago(health.heartbeat_ns, now_ns) + pid}});
    const std::string next = health.next != 0 ? " (next " + std::to_string(health.next) + ")" : "";
    const std::string servers = health.mappings ? std::to_string(*health.mappings) : "?";
    page.add({{"table  " + std::to_string(health.generation) + next + "  keys " + count_text(health.live) +
               " of " + count_text(health.slots) + " slots (" + percent(health.live, health.slots) +
               ")  dead " + count_text(health.dead) + "  files " + std::to_string(health.generations) +
               "  servers " + servers}});
    Line source = {{"source loaded " + ago(health.loaded_ns, now_ns)}};
    if (health.refused != 0) {
        source.push_back({", " + std::to_string(health.refused) + " loads refused since", Style::kBad});
    }
    source.push_back({"  counts flushed " + ago(health.flushed_ns, now_ns)});
    source.push_back({", at most " + count_text(health.unflushed_max) + " keys wait"});
    page.add(source);
}

const char* note_text(RateNote note) {
    switch (note) {
        case RateNote::kFirst:
            return "  (measuring)";
        case RateNote::kReplaced:
            return "  (instance replaced; measuring)";
        case RateNote::kGeneration:
            return "  (generation changed)";
        case RateNote::kNone:
            break;
    }
    return "";
}

/// Codes that were answered, in as many lines as their number needs.
void add_codes(Page& page, const View& view, size_t width) {
    const CodeRates& codes = view.codes;
    const std::string total = codes.seconds > 0 ? rate_text(codes.total) : "-";
    const std::string over =
        view.activity.seconds > 0
            ? "  " + count_text(view.activity.active) + " keys in " +
                  duration_text(static_cast<uint64_t>(std::lround(view.activity.seconds * 1000)))
            : "";
    Line line = {{"validations/s " + total + over}, {note_text(codes.note), Style::kWarn}};
    size_t used = line[0].text.size() + line[1].text.size();
    for (size_t code = 0; code < codes.by_code.size(); ++code) {
        if (codes.by_code[code] <= 0) {
            continue;
        }
        const std::string text = std::string("  ") + apikey_code_name(static_cast<apikey_code>(code)) + ' ' +
                                 rate_text(codes.by_code[code]);
        if (used + text.size() > width) {
            page.add(line);
            line = {{"             "}};
            used = line[0].text.size();
        }
        line.push_back({text, code == APIKEY_VALID ? Style::kGood : Style::kWarn});
        used += text.size();
    }
    page.add(line);
}

/// The columns for names: what is left of the width, at least what one can make out.
struct NameWidths {
    size_t owner;
    size_t plan;
    explicit NameWidths(size_t width)
        : owner(std::clamp<size_t>(width / 5, 10, 40)), plan(std::clamp<size_t>(width / 8, 8, 24)) {}
};

void add_keys(Page& page, const View& view, size_t width, size_t count) {
    const NameWidths names(width);
    const auto title = [&](const char* text, Sort sort) {
        return right(std::string(view.sort == sort ? ">" : "") + text, 10);
    };
    page.head("KEY         " + title("ALLOWED/S", Sort::kAllowed) + title("DENIED/S", Sort::kDenied) + "  " +
              fit("OWNER", names.owner) + "  " + fit("PLAN", names.plan) + "  NAME");
    for (size_t i = 0; i < std::min(count, view.activity.keys.size()); ++i) {
        const KeyRate& key = view.activity.keys[i];
        page.add({{fit(key.id, 12) + right(rate_text(key.allowed), 10)},
                  {right(rate_text(key.denied), 10), key.denied > 0 ? Style::kWarn : Style::kPlain},
                  {"  " + fit(key.owner, names.owner) + "  " + fit(key.plan, names.plan) + "  " + key.name}});
    }
}

void add_limits(Page& page, const View& view, size_t width, size_t count) {
    const NameWidths names(width);
    const std::string more =
        view.activity.near > count ? "  (" + count_text(view.activity.near) + " in all)" : "";
    page.head("LIMIT OF     USED  REMAINING      RESET  " + fit("OWNER", names.owner) + "  LIMIT" + more);
    for (size_t i = 0; i < std::min(count, view.activity.limits.size()); ++i) {
        const LimitUse& use = view.activity.limits[i];
        const std::string used = std::to_string(static_cast<unsigned>(use.used * 100)) + '%';
        page.add({{fit(use.id.empty() ? "all keys of" : use.id, 12)},
                  {right(used, 5), use.remaining == 0 ? Style::kBad : Style::kWarn},
                  {right(count_text(use.remaining), 11) + right(duration_text(use.reset_ms), 11) + "  " +
                   fit(use.owner, names.owner) + "  " + fit(use.limit, 15) + (use.rate ? " rate" : " quota") +
                   (use.shadow ? " shadow" : "")}});
    }
}

const char* sgr(Style style) {
    switch (style) {
        case Style::kHead:
            return "\x1b[7m";
        case Style::kGood:
            return "\x1b[32m";
        case Style::kWarn:
            return "\x1b[33m";
        case Style::kBad:
            return "\x1b[1;31m";
        case Style::kPlain:
            break;
    }
    return "";
}

}  // namespace

std::string rate_text(double per_s) {
    char text[32];
    const char* form = per_s == 0    ? "%.0f"
                       : per_s < 10  ? "%.2f"
                       : per_s < 100 ? "%.1f"
                       : per_s < 1e6 ? "%.0f"
                       : per_s < 1e9 ? "%.2fM"
                                     : "%.2fG";
    const double unit = per_s < 1e6 ? 1 : per_s < 1e9 ? 1e6 : 1e9;
    std::snprintf(text, sizeof text, form, per_s / unit);
    return text;
}

std::string duration_text(uint64_t ms) {
    constexpr uint64_t kSecond = 1000, kMinute = 60 * kSecond, kHour = 60 * kMinute, kDay = 24 * kHour;
    return ms < kSecond       ? std::to_string(ms) + "ms"
           : ms < 2 * kMinute ? std::to_string(ms / kSecond) + 's'
           : ms < 2 * kHour   ? std::to_string(ms / kMinute) + 'm'
           : ms < 2 * kDay    ? std::to_string(ms / kHour) + 'h'
                              : std::to_string(ms / kDay) + 'd';
}

std::string fit(std::string_view text, size_t width) {
    std::string shown;
    size_t used = 0;
    while (!text.empty()) {
        char32_t character = 0;
        const size_t length = utf8_sequence(text, character);
        const int columns = length != 0 ? columns_of(character) : -1;
        const size_t wide = columns < 0 ? 1 : static_cast<size_t>(columns);
        if (used + wide > width) {
            break;
        }
        shown += columns < 0 ? std::string_view("?") : text.substr(0, length);
        used += wide;
        text.remove_prefix(std::max<size_t>(length, 1));
    }
    return shown.append(width - used, ' ');
}

std::vector<Line> lay_out(const View& view, Size size, size_t keys) {
    Page page(size.width);
    page.head("apikeyctl top  " +
              format_rfc3339(static_cast<int64_t>(view.look.realtime_ns / 1'000'000'000)) + "  " +
              view.instance);
    if (view.look.attached != apikey::shm::AttachResult::kOk) {
        page.add({{apikey::shm::attach_text(view.look.attached), Style::kBad}});
    } else {
        add_daemon(page, view);
        add_codes(page, view, size.width);
        const bool bounded = size.height != 0;
        // Two heads; limits may have a third of what is left, keys the rest.
        const size_t taken = page.lines().size() + 2;
        const size_t room = size.height > taken ? size.height - taken : 0;
        const size_t limits =
            bounded ? std::min(view.activity.limits.size(), room / 3) : view.activity.limits.size();
        const size_t fitting = bounded ? room - limits : view.activity.keys.size();
        add_keys(page, view, size.width, keys != 0 ? std::min(keys, fitting) : fitting);
        add_limits(page, view, size.width, limits);
    }
    if (size.height != 0 && page.lines().size() > size.height) {
        page.lines().resize(size.height);
    }
    return std::move(page.lines());
}

std::string render(const std::vector<Line>& lines, bool colour, std::string_view between) {
    std::string text;
    for (const Line& line : lines) {
        std::string plain;
        for (const Span& span : line) {
            const bool styled = colour && span.style != Style::kPlain;
            plain += styled ? sgr(span.style) + span.text + "\x1b[0m" : span.text;
        }
        plain.erase(plain.find_last_not_of(' ') + 1);
        text += (&line != lines.data() ? std::string(between) : "") + plain;
    }
    return text;
}

}  // namespace apikeyd::top
