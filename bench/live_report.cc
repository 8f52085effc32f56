#include "bench/live_report.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <iterator>
#include <utility>

#include "base/errno_text.h"
#include "base/file_io.h"
#include "base/owned_fd.h"

namespace apikey::bench {
namespace {

constexpr mode_t kReportMode = 0644;

struct Percentile {
    const char* name;
    double share;
};
constexpr Percentile kPercentiles[] = {{"p50", 0.5}, {"p99", 0.99}, {"p99_9", 0.999}};

double per_second(uint64_t count, uint64_t ran_ns) {
    return ran_ns == 0 ? 0 : static_cast<double>(count) * 1e9 / static_cast<double>(ran_ns);
}

double sample_ns(const LiveReport& report, uint64_t ticks) {
    return static_cast<double>(ticks) * report.ns_per_tick;
}

std::string distribution(const LiveOptions& options) {
    return options.zipf_theta == 0 ? "uniform" : fmt::format("zipf {:g}", options.zipf_theta);
}

using CodeCount = std::pair<const char*, uint64_t>;

std::vector<CodeCount> codes_seen(const LiveReport& report) {
    std::vector<CodeCount> seen;
    for (size_t code = 0; code < std::size(report.codes); ++code) {
        if (report.codes[code] != 0) {
            seen.emplace_back(apikey_code_name(static_cast<apikey_code>(code)), report.codes[code]);
        }
    }
    return seen;
}

}  // namespace

LiveReport sum_up(const LiveOptions& options, const KeyRing& ring, const SharedArea& area,
                  const TickClock& clock) {
    LiveReport report;
    report.known_keys = ring.known.size();
    report.switched_keys = ring.switched;
    for (uint32_t process = 0; process < options.processes; ++process) {
        double sum = 0;
        for (uint32_t thread = 0; thread < options.threads; ++thread) {
            const ThreadTally& tally = area.threads[process * options.threads + thread];
            sum += per_second(tally.keys, tally.ran_ns);
            report.sample_ticks.merge(tally.sample_ticks);
            for (size_t code = 0; code < std::size(report.codes); ++code) {
                report.codes[code] += tally.codes[code];
            }
        }
        report.per_process_per_s.push_back(sum);
        report.total_per_s += sum;
    }
    report.clock = clock.name();
    report.ns_per_tick = clock.ns_per_tick();
    report.clock_step_ticks = clock.step_ticks();
    report.writer = area.writer;
    return report;
}

std::string table_text(const LiveOptions& options, const LiveReport& report) {
    std::string text;
    const auto out = std::back_inserter(text);
    fmt::format_to(out, "{} x {} threads, {} keys {}, {}% misses, {}\n\n", options.processes, options.threads,
                   report.known_keys, distribution(options), options.misses_percent,
                   options.batch == 1 ? "single calls" : fmt::format("batches of {}", options.batch));
    fmt::format_to(out, "throughput   {:>12.0f} validations/s\n", report.total_per_s);
    for (size_t process = 0; process < report.per_process_per_s.size(); ++process) {
        fmt::format_to(out, "  process {:<3}{:>12.0f}\n", process, report.per_process_per_s[process]);
    }
    fmt::format_to(out, "\nlatency of {} validations together, {} samples\n", keys_per_sample(options.batch),
                   report.sample_ticks.count);
    for (const Percentile& percentile : kPercentiles) {
        fmt::format_to(out, "  {:<10}{:>12.0f} ns\n", percentile.name,
                       sample_ns(report, report.sample_ticks.percentile(percentile.share)));
    }
    fmt::format_to(out, "  {:<10}{:>12.0f} ns\n", "max", sample_ns(report, report.sample_ticks.max));
    fmt::format_to(out, "  (two readings of the clock, {}, differ by at least {:.1f} ns; buckets of 3%)\n",
                   report.clock, sample_ns(report, report.clock_step_ticks));
    fmt::format_to(out, "\nanswers, all of them right\n");
    for (const auto& [name, count] : codes_seen(report)) {
        fmt::format_to(out, "  {:<10}{:>12}\n", name, count);
    }
    if (options.writer_rate_per_s != 0) {
        const WriterTally& writer = report.writer;
        fmt::format_to(out,
                       "\nwriter       {:>12.0f} changes/s of {} wanted, {} requests, p99 {} us, max {} us\n",
                       per_second(writer.changes, writer.ran_ns), options.writer_rate_per_s, writer.requests,
                       writer.request_us.percentile(0.99), writer.request_us.max);
    }
    return text;
}

std::string json_text(const LiveOptions& options, const LiveReport& report) {
    std::string text;
    const auto out = std::back_inserter(text);
    fmt::format_to(out,
                   "{{\n  \"format\": 1,\n  \"processes\": {},\n  \"threads\": {},\n  \"seconds\": {:g},\n"
                   "  \"batch\": {},\n  \"misses_percent\": {},\n  \"distribution\": \"{}\",\n"
                   "  \"keys\": {},\n",
                   options.processes, options.threads, options.seconds, options.batch, options.misses_percent,
                   distribution(options), report.known_keys);
    fmt::format_to(out, "  \"validations_per_second\": {{\"total\": {:.0f}, \"by_process\": [",
                   report.total_per_s);
    const char* separator = "";
    for (const double process_per_s : report.per_process_per_s) {
        fmt::format_to(out, "{}{:.0f}", separator, process_per_s);
        separator = ", ";
    }
    fmt::format_to(out, "]}},\n");
    fmt::format_to(out, "  \"latency_ns\": {{\"validations_per_sample\": {}, \"samples\": {}",
                   keys_per_sample(options.batch), report.sample_ticks.count);
    for (const Percentile& percentile : kPercentiles) {
        fmt::format_to(out, ", \"{}\": {:.1f}", percentile.name,
                       sample_ns(report, report.sample_ticks.percentile(percentile.share)));
    }
    fmt::format_to(out, ", \"max\": {:.1f}}},\n", sample_ns(report, report.sample_ticks.max));
    fmt::format_to(out, "  \"clock\": {{\"name\": \"{}\", \"step_ns\": {:.1f}}},\n", report.clock,
                   sample_ns(report, report.clock_step_ticks));
    fmt::format_to(out, "  \"codes\": {{");
    separator = "";
    for (const auto& [name, count] : codes_seen(report)) {
        fmt::format_to(out, "{}\"{}\": {}", separator, name, count);
        separator = ", ";
    }
    fmt::format_to(out, "}},\n");
    if (options.writer_rate_per_s == 0) {
        fmt::format_to(out, "  \"writer\": null\n}}\n");
        return text;
    }
    const WriterTally& writer = report.writer;
    fmt::format_to(out,
                   "  \"writer\": {{\"changes_per_second_wanted\": {}, \"changes_per_second\": {:.1f}, "
                   "\"changes\": {}, \"keys\": {}, \"requests\": {}, \"request_us\": {{\"p50\": {}, "
                   "\"p99\": {}, \"max\": {}}}}}\n}}\n",
                   options.writer_rate_per_s, per_second(writer.changes, writer.ran_ns), writer.changes,
                   report.switched_keys, writer.requests, writer.request_us.percentile(0.5),
                   writer.request_us.percentile(0.99), writer.request_us.max);
    return text;
}

apikeyd::Result<void> write_file(const std::string& path, const std::string& text) {
    const std::string build = path + ".new";
    const auto failure = [&](int error) {
        unlink(build.c_str());
        return apikeyd::fail(build + ": " + apikeyd::errno_text(error));
    };
    apikeyd::OwnedFd file(open(build.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kReportMode));
    if (!file.is_open()) {
        return apikeyd::fail(build + ": " + apikeyd::errno_text(errno));
    }
    if (const int error = apikeyd::write_all(file.get(), text); error != 0) {
        return failure(error);
    }
    if (rename(build.c_str(), path.c_str()) != 0) {
        return failure(errno);
    }
    return {};
}

}  // namespace apikey::bench
