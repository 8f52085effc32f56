#include "tools/usage_access.h"

namespace apikeyd {

namespace {

/// Empty, or why the store is not up to date.
std::string flush_problem(const Context& context) {
    const auto answer = context.ask(FlushRequest{}, kStatusWait_ms);
    if (!answer) {
        return answer.error().message;
    }
    const Result<void> done = parse_done(*answer);
    return done ? std::string() : context.socket_path() + ": " + done.error().message;
}

}  // namespace

tl::expected<OpenUsage, Failure> open_usage(const Context& context, bool flush) {
    const auto path = context.usage_path();
    if (!path) {
        return tl::unexpected(path.error());
    }
    const std::string problem = flush ? flush_problem(context) : std::string();
    if (!problem.empty()) {
        say(problem + "\n(counts since the last flush are missing)");
    }
    Result<UsageReader> reader = UsageReader::open(*path);
    if (!reader) {
        return failed(Exit::kUnreachable, reader.error());
    }
    return OpenUsage{*std::move(reader), flush && problem.empty()};
}

}  // namespace apikeyd
