#include "core/preflight.h"

#include <grp.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>

#include "base/errno_text.h"
#include "shm/directory.h"
#include "source/snapshot.h"
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
    // Only root may give files to a group of others.
    std::vector<gid_t> mine(static_cast<size_t>(std::max(0, getgroups(0, nullptr))));
    mine.resize(static_cast<size_t>(std::max(0, getgroups(static_cast<int>(mine.size()), mine.data()))));
    if (geteuid() != 0 && found->gr_gid != getegid() &&
        std::find(mine.begin(), mine.end(), found->gr_gid) == mine.end()) {
        return fail(config.named(field) + ": this user is no member of group '" + name +
                    "' (make it one, or name another)");
    }
    return found->gr_gid;
}

std::array<std::pair<std::string_view, const std::string&>, 2> group_fields(const Config& config) {
    return {{{"clients_group", config.clients_group}, {"operators_group", config.operators_group}}};
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

/// What of the directory a start would refuse, its socket's path included.
std::string directory_problem(const Config& config) {
    const std::string socket = config.directory + "/" + config.instance + "/admin.sock";
    if (socket.size() >= sizeof(sockaddr_un::sun_path)) {
        return socket + ": too long for a socket (want at most " +
               std::to_string(sizeof(sockaddr_un::sun_path) - 1) + " bytes)";
    }
    const auto checked = apikey::shm::Directory::check(config.directory, config.instance);
    return checked ? std::string() : checked.error().message;
}

std::string store_problem(const std::string& path) {
    const auto status = status_of(path);
    if (!status) {
        return unusable(std::filesystem::path(path).parent_path());
    }
    const bool is_empty = S_ISREG(status->st_mode) && status->st_size == 0;  // a start fills it
    if (const auto store = UsageReader::open(path); !store && !is_empty) {
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

std::string snapshot_problem(const std::string& path) {
    if (path.empty()) {
        return {};
    }
    if (const Result<void> ours = check_snapshot_place(path); !ours) {
        return ours.error().message;
    }
    // Another one takes its place, and SQLite keeps files beside it.
    return unusable(std::filesystem::path(path).parent_path());
}

}  // namespace

Result<Groups> find_groups(const Config& config) {
    std::vector<gid_t> numbers;
    for (const auto& [field, name] : group_fields(config)) {
        const Result<gid_t> found = find_group(config, field, name);
        if (!found) {
            return tl::unexpected(found.error());
        }
        numbers.push_back(*found);
    }
    return Groups{numbers[0], numbers[1]};
}

std::vector<Error> preflight(const Config& config) {
    std::vector<Error> errors;
    for (const auto& [field, name] : group_fields(config)) {
        if (const auto found = find_group(config, field, name); !found) {
            errors.push_back(found.error());
        }
    }
    const std::pair<std::string_view, std::string> problems[] = {
        {"directory", directory_problem(config)},
        {"usage", store_problem(config.usage_path)},
        {"snapshot.file", snapshot_problem(config.snapshot.file)},
        {"log.file", log_problem(config.log.file)},
        {"audit_log.file", log_problem(config.audit_log.file)},
        {"denial_log.file", log_problem(config.denial_log.file)},
    };
    for (const auto& [field, problem] : problems) {
        if (!problem.empty()) {
            errors.push_back({config.named(field) + ": " + problem});
        }
    }
    return errors;
}

}  // namespace apikeyd
