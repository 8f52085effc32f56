#include "core/preflight.h"

#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>

#include "base/errno_text.h"
#include "usage/usage_reader.h"

namespace apikeyd {

namespace {

Result<gid_t> find_group(const Config& config, std::string_view field, const std::string& name) {
    if (name.empty()) {
        return getegid();
    }
    std::vector<char> buffer(1024);
    group entry{};
    group* found = nullptr;
    while (getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) == ERANGE) {
        buffer.resize(buffer.size() * 2);
    }
    if (found == nullptr) {
        return fail(config.named(field) + ": group '" + name +
                    "' does not exist (create it, or name another)");
    }
    return found->gr_gid;
}

/// Why no file can be made in `directory`; empty when one can.
std::string unusable(const std::filesystem::path& directory) {
    struct stat status {};
    if (stat(directory.c_str(), &status) != 0) {
        return directory.string() + ": " + errno_text(errno);
    }
    if (!S_ISDIR(status.st_mode)) {
        return directory.string() + ": is no directory";
    }
    if (access(directory.c_str(), W_OK | X_OK) != 0) {
        return directory.string() + ": cannot be written: " + errno_text(errno);
    }
    return {};
}

std::optional<struct stat> status_of(const std::string& path) {
    struct stat status {};
    return lstat(path.c_str(), &status) == 0 ? std::optional(status) : std::nullopt;
}

/// The instance's directory, or the nearest one in which it would be made: a start makes two at most.
std::string directory_problem(const Config& config) {
    const std::string instance = config.directory + "/" + config.instance;
    if (const auto own = status_of(instance)) {
        if (!S_ISDIR(own->st_mode)) {
            return instance + ": is no directory (links are not followed)";
        }
        return own->st_uid == geteuid() ? unusable(instance)
                                        : instance + ": owned by uid " + std::to_string(own->st_uid) +
                                              ", not by this process's uid " + std::to_string(geteuid());
    }
    return status_of(config.directory) ? unusable(config.directory)
                                       : unusable(std::filesystem::path(config.directory).parent_path());
}

std::string store_problem(const std::string& path) {
    if (!status_of(path)) {
        return unusable(std::filesystem::path(path).parent_path());
    }
    if (const auto store = UsageReader::open(path); !store) {
        return store.error().message;
    }
    return access(path.c_str(), W_OK) == 0 ? std::string()
                                           : path + ": cannot be written: " + errno_text(errno);
}

std::string log_problem(const std::string& path) {
    if (path.empty()) {
        return {};
    }
    const auto file = status_of(path);
    if (!file) {
        return unusable(std::filesystem::path(path).parent_path());
    }
    if (S_ISLNK(file->st_mode) || S_ISDIR(file->st_mode)) {
        return path + ": is a " +
               (S_ISDIR(file->st_mode) ? "directory" : "symbolic link, which is not followed");
    }
    return access(path.c_str(), W_OK) == 0 ? std::string()
                                           : path + ": cannot be written: " + errno_text(errno);
}

}  // namespace

Result<Groups> find_groups(const Config& config) {
    const Result<gid_t> clients = find_group(config, "clients_group", config.clients_group);
    if (!clients) {
        return tl::unexpected(clients.error());
    }
    const Result<gid_t> operators = find_group(config, "operators_group", config.operators_group);
    if (!operators) {
        return tl::unexpected(operators.error());
    }
    return Groups{*clients, *operators};
}

std::vector<Error> preflight(const Config& config) {
    std::vector<Error> errors;
    for (const auto& found : {find_group(config, "clients_group", config.clients_group),
                              find_group(config, "operators_group", config.operators_group)}) {
        if (!found) {
            errors.push_back(found.error());
        }
    }
    const std::pair<std::string_view, std::string> problems[] = {
        {"directory", directory_problem(config)},
        {"usage", store_problem(config.usage_path)},
        {"log.file", log_problem(config.log.file)},
    };
    for (const auto& [field, problem] : problems) {
        if (!problem.empty()) {
            errors.push_back({config.named(field) + ": " + problem});
        }
    }
    return errors;
}

}  // namespace apikeyd
