#include "bench/serving_report.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <thread>

namespace apikey::bench {
namespace {

/// Three digits that mean something, and no exponent.
std::string number(double value) {
    if (value == std::floor(value) || std::fabs(value) >= 100) {
        return fmt::format("{:.0f}", value);
    }
    return fmt::format("{:.{}f}", value, value >= 10 ? 1 : value >= 1 ? 2 : 4);
}

/// The clock that times single calls: name and step in ns.
std::pair<const char*, double> clock_step() {
    const TickClock clock;
    const uint64_t step_ticks = clock.step_ticks();
    return {clock.name(), static_cast<double>(step_ticks) * clock.ns_per_tick()};
}

}  // namespace

std::string serving_text(const ServingOptions& options, const std::vector<FigureTable>& tables) {
    std::string text;
    const auto out = std::back_inserter(text);
    const auto [clock, step_ns] = clock_step();
    fmt::format_to(out, "{} keys, {} CPUs; two readings of the clock ({}) differ by at least {:.1f} ns\n",
                   options.keys, std::thread::hardware_concurrency(), clock, step_ns);
    for (const FigureTable& table : tables) {
        fmt::format_to(out, "\n{}: {}\n  {:38}", table.name, table.title, "");
        for (const auto& [name, value] : table.rows.front().figures) {
            fmt::format_to(out, " {:>17}", name);
        }
        for (const FigureRow& row : table.rows) {
            fmt::format_to(out, "\n  {:<38}", row.what);
            for (const auto& [name, value] : row.figures) {
                fmt::format_to(out, " {:>17}", number(value));
            }
        }
        fmt::format_to(out, "\n");
    }
    return text;
}

std::string serving_json(const ServingOptions& options, const std::vector<FigureTable>& tables) {
    std::string text;
    const auto out = std::back_inserter(text);
    const auto [clock, step_ns] = clock_step();
    fmt::format_to(out,
                   "{{\n  \"format\": 1,\n  \"keys\": {},\n  \"seconds\": {:g},\n  \"repetitions\": {},\n"
                   "  \"switches\": {},\n  \"switch_keys\": {},\n  \"store_keys\": {},\n"
                   "  \"revocations\": {},\n  \"cpus\": {},\n"
                   "  \"clock\": {{\"name\": \"{}\", \"step_ns\": {:.1f}}},\n"
                   "  \"tables\": {{",
                   options.keys, options.seconds, options.repetitions, options.switches, options.switch_keys,
                   options.store_keys, options.revocations, std::thread::hardware_concurrency(), clock,
                   step_ns);
    const char* table_separator = "\n";
    for (const FigureTable& table : tables) {
        fmt::format_to(out, "{}    \"{}\": [", table_separator, table.name);
        const char* row_separator = "\n";
        for (const FigureRow& row : table.rows) {
            fmt::format_to(out, "{}      {{\"what\": \"{}\"", row_separator, row.what);
            for (const auto& [name, value] : row.figures) {
                fmt::format_to(out, ", \"{}\": {:.9g}", name, value);
            }
            fmt::format_to(out, "}}");
            row_separator = ",\n";
        }
        fmt::format_to(out, "\n    ]");
        table_separator = ",\n";
    }
    fmt::format_to(out, "\n  }}\n}}\n");
    return text;
}

}  // namespace apikey::bench
