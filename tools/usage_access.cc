#include "tools/usage_access.h"

#include <apikey/apikey.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "shm/attach.h"

namespace apikeyd {

namespace shm = apikey::shm;

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

/// What a generation counted and the store has not. Of both, the store is looked at first: what is flushed
/// meanwhile is taken for unflushed, never the other way.
std::optional<uint64_t> unflushed_of(const shm::GenerationMapping& mapping, UsageReader& reader) {
    if (mapping.cells.base == nullptr) {
        return std::nullopt;
    }
    GenerationUid uid;
    std::memcpy(uid.data(), reinterpret_cast<const shm::CellsHeader*>(mapping.cells.base)->uid, uid.size());
    const auto stored = reader.code_baselines(uid);
    if (!stored) {
        return std::nullopt;
    }
    uint64_t waiting = 0;
    // What a limit in shadow mode would have refused was answered, and counted, by another code.
    for (uint8_t code = 0; *stored && code < APIKEY_SHADOW_RATE_LIMITED; ++code) {
        const auto known = std::find_if((*stored)->begin(), (*stored)->end(),
                                        [&](const CodeCount& one) { return one.code == code; });
        const uint64_t before = known != (*stored)->end() ? known->total : 0;
        waiting += std::max(shm::sum_code(mapping.cells, code), before) - before;
    }
    return waiting;
}

std::optional<uint64_t> unflushed(const Context& context, UsageReader& reader) {
    const std::string directory = context.instance_directory();
    const shm::AttachOptions options{directory.c_str(), context.own_directory() ? geteuid() : shm::kAnyOwner};
    shm::ControlMapping control;
    if (shm::attach_control(options, &control) != shm::AttachResult::kOk) {
        return std::nullopt;
    }
    // SYNC generation-published: acquire; pairs with ControlWriter::publish(). What is named is complete.
    const uint64_t word = control.control->current_next.load(std::memory_order_acquire);
    std::vector<uint32_t> generations = {shm::current_of(word)};
    if (shm::next_of(word) > generations.front()) {
        generations.push_back(shm::next_of(word));
    }
    std::optional<uint64_t> waiting = 0;
    for (const uint32_t generation : generations) {
        shm::GenerationMapping mapping;
        const bool attached =
            shm::attach_generation(options, control, generation, &mapping) == shm::AttachResult::kOk;
        const auto of_one = attached ? unflushed_of(mapping, reader) : std::nullopt;
        waiting = waiting && of_one ? std::optional(*waiting + *of_one) : std::nullopt;
        if (attached) {
            shm::detach_generation(&mapping);
        }
    }
    shm::detach_control(&control);
    return waiting;
}

}  // namespace

tl::expected<OpenUsage, Failure> open_usage(const Context& context, bool flush) {
    const auto path = context.usage_path();
    if (!path) {
        return tl::unexpected(path.error());
    }
    const std::string problem = flush ? flush_problem(context) : std::string();
    Result<UsageReader> reader = UsageReader::open(*path);
    if (!reader) {
        return failed(Exit::kUnreachable,
                      problem.empty() ? reader.error().message : problem + '\n' + reader.error().message);
    }
    OpenUsage usage{*std::move(reader), flush && problem.empty(), 0};
    if (!usage.complete) {
        usage.unflushed = unflushed(context, usage.reader);
    }
    if (!problem.empty()) {
        say(problem + "\n(counts since the last flush are missing" +
            (usage.unflushed ? ": " + std::to_string(*usage.unflushed) + " unflushed" : "") + ')');
    }
    return usage;
}

}  // namespace apikeyd
