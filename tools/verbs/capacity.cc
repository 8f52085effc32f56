// capacity: the memory that so many keys take, by the code that makes the files.

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <system_error>

#include "core/generation_plan.h"
#include "shm/layout.h"
#include "source/key_set_limits.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

struct CapacityOptions {
    ExpectedKeys expected{.keys = 0, .text_bytes = 32, .owners = 1, .limits = 0};
};

/// The word in brackets: what the kernel does about huge pages of shared memory.
Value huge_page_mode() {
    std::ifstream file("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    for (std::string word; file >> word;) {
        if (word.size() > 2 && word.front() == '[') {
            return word.substr(1, word.size() - 2);
        }
    }
    return {};
}

/// What the daemon that runs has in memory of its own; nothing where there is none that says so.
Value private_bytes(const Context& context) {
    const auto status = context.ask_status();
    if (!status) {
        return {};
    }
    std::ifstream file("/proc/" + std::to_string(status->pid) + "/status");
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string name;
        uint64_t kib = 0;
        if (words >> name >> kib && name == "RssAnon:") {
            return kib << 10;
        }
    }
    return {};
}

/// The file system that instances are or would be on.
std::optional<struct statvfs> file_system(std::filesystem::path directory) {
    struct statvfs found {};
    while (statvfs(directory.c_str(), &found) != 0) {
        if (!directory.has_parent_path() || directory == directory.parent_path()) {
            return std::nullopt;
        }
        directory = directory.parent_path();
    }
    return found;
}

Outcome capacity(const Context& context, const CapacityOptions& options) {
    if (Outcome usable = context.check_config(); !usable) {
        return usable;
    }
    const uint64_t room = context.config() ? context.config()->capacity_keys : 0;
    const apikey::shm::GenerationSizes sizes =
        apikey::shm::sizes_of(expected_generation(options.expected, room));
    const uint64_t bytes = sizes.table_bytes + sizes.cells_bytes;
    const auto whole = [](uint64_t file_bytes) { return file_bytes / apikey::shm::kHugePageBytes; };
    const auto there = file_system(context.directory());
    const uint64_t free_bytes = there ? uint64_t{there->f_bavail} * there->f_frsize : 0;
    const uint64_t all_bytes = there ? uint64_t{there->f_blocks} * there->f_frsize : 0;
    return print(
        format_record(context.output(), {{"keys", options.expected.keys},
                                         {"table_bytes", sizes.table_bytes},
                                         {"cells_bytes", sizes.cells_bytes},
                                         {"shards", uint64_t{sizes.shards}},
                                         {"bytes", bytes},
                                         {"change_bytes", 2 * bytes},
                                         {"huge_pages", whole(sizes.table_bytes) + whole(sizes.cells_bytes)},
                                         {"huge_page_mode", huge_page_mode()},
                                         {"directory", context.directory()},
                                         {"directory_bytes", there ? Value(all_bytes) : Value()},
                                         {"directory_free_bytes", there ? Value(free_bytes) : Value()},
                                         {"fits", there ? Value(2 * bytes <= free_bytes) : Value()},
                                         {"daemon_private_bytes", private_bytes(context)}}));
}

}  // namespace

Verb add_capacity(CommandLine& line) {
    auto options = std::make_shared<CapacityOptions>();
    ExpectedKeys& expected = options->expected;
    Command command = line.add_verb("capacity", "tell how much memory N keys take");
    command.add_required_number("N", expected.keys, 1, kKeySetRowsMax, "how many keys");
    command.add_number("--text", expected.text_bytes, 0, kNameBytesMax + kMetadataBytesMax,
                       "bytes of a key's name and metadata, on the average");
    command.add_number("--owners", expected.owners, 0, kKeySetRowsMax, "how many owners share the keys");
    command.add_number("--limits", expected.limits, 0, kLimitsMax, "limits of the plan that has the most");
    command.set_example("apikeyctl capacity 1000000 --text 100 --owners 5000");
    return {command, [options](const Context& context) { return capacity(context, *options); }};
}

}  // namespace apikeyd
