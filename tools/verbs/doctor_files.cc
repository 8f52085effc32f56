// doctor's checks of files: modes, owners, room.

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>

#include "base/errno_text.h"
#include "tools/verbs/doctor.h"

namespace apikeyd {

namespace {

constexpr mode_t kModeBits = 07777;
constexpr mode_t kDirectoryMode = 0750;

/// What a file of an instance is called and allowed; the sockets' group are the operators.
struct Wanted {
    std::string_view name;  ///< whole, or what comes before the generation's number
    mode_t mode;
    mode_t type;
};
constexpr Wanted kWanted[] = {
    {"control", 0640, S_IFREG}, {"table.", 0640, S_IFREG},      {"cells.", 0660, S_IFREG},
    {"lock", 0600, S_IFREG},    {"admin.sock", 0660, S_IFSOCK},
};

std::string octal(mode_t mode) {
    char text[8];
    std::snprintf(text, sizeof text, "%04o", mode & kModeBits);
    return text;
}

const Wanted* wanted_for(std::string_view name) {
    for (const Wanted& one : kWanted) {
        if (one.name.ends_with('.') ? name.starts_with(one.name) : name == one.name) {
            return &one;
        }
    }
    return nullptr;
}

std::optional<gid_t> group_of(const std::string& name) {
    const group* entry = name.empty() ? nullptr : getgrnam(name.c_str());
    return entry != nullptr ? std::optional(entry->gr_gid) : std::nullopt;
}

/// Findings about one file; returns how many.
int check_file(const Context& context, const std::string& name, const struct stat& directory,
               const struct stat& status, Findings& findings) {
    const Wanted* wanted = wanted_for(name);
    if (wanted == nullptr) {
        return 0;  // a build under way
    }
    const std::string path = context.instance_directory() + '/' + name;
    if ((status.st_mode & S_IFMT) != wanted->type) {
        findings.fail("files", path + ": is not of its type",
                      "stop apikeyd, remove the directory, start it again");
        return 1;
    }
    int found = 0;
    if ((status.st_mode & kModeBits) != wanted->mode) {
        findings.fail("files", path + ": mode " + octal(status.st_mode), "want mode " + octal(wanted->mode));
        ++found;
    }
    if (status.st_uid != directory.st_uid) {
        findings.fail("files", path + ": owned by uid " + std::to_string(status.st_uid),
                      "want the directory's owner, uid " + std::to_string(directory.st_uid));
        ++found;
    }
    const auto& config = context.config();
    const std::string group_name = !config                ? std::string()
                                   : name == "admin.sock" ? config->operators_group
                                   : name == "lock"       ? std::string()
                                                          : config->clients_group;
    if (const auto group = group_of(group_name); group && status.st_gid != *group) {
        findings.fail("files", path + ": group " + std::to_string(status.st_gid),
                      "want group " + group_name + "; start apikeyd again after changing the configuration");
        ++found;
    }
    return found;
}

uint64_t file_bytes(const std::string& path) {
    struct stat status {};
    return stat(path.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
}

std::string mebibytes(uint64_t bytes) {
    return std::to_string(bytes >> 20) + " MiB";
}

}  // namespace

void check_directory(const Context& context, Findings& findings) {
    const std::string path = context.instance_directory();
    struct stat status {};
    if (lstat(path.c_str(), &status) != 0) {
        findings.fail("directory", path + ": " + errno_text(errno),
                      errno == ENOENT ? "start apikeyd, or name the instance with --config or --directory"
                                      : "run this as root or as a member of the clients' group");
        return;
    }
    if (!S_ISDIR(status.st_mode)) {
        findings.fail("directory", path + ": is no directory (links are not followed)",
                      "remove it, start apikeyd");
        return;
    }
    if ((status.st_mode & kModeBits) != kDirectoryMode) {
        findings.fail("directory", path + ": mode " + octal(status.st_mode),
                      "want mode " + octal(kDirectoryMode));
    }
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(path.c_str()), closedir);
    if (!listing) {
        findings.fail("directory", path + ": " + errno_text(errno),
                      "run this as a member of the clients' group");
        return;
    }
    int wrong = 0;
    int files = 0;
    while (const dirent* entry = readdir(listing.get())) {
        struct stat file {};
        if (entry->d_name[0] != '.' &&
            fstatat(dirfd(listing.get()), entry->d_name, &file, AT_SYMLINK_NOFOLLOW) == 0) {
            ++files;
            wrong += check_file(context, entry->d_name, status, file, findings);
        }
    }
    if (wrong == 0) {
        findings.ok("directory", path + ": uid " + std::to_string(status.st_uid) + ", mode " +
                                     octal(status.st_mode) + ", " + std::to_string(files) +
                                     " files as they should be");
    }
}

void check_space(const Context& context, uint32_t generation, Findings& findings) {
    const std::string path = context.instance_directory();
    struct statfs system {};
    if (statfs(path.c_str(), &system) != 0) {
        return;  // check_directory() has said it
    }
    if (system.f_type != TMPFS_MAGIC) {
        findings.warn("memory", path + ": is not on a tmpfs",
                      "set `directory` to one under /run or /dev/shm");
    }
    const uint64_t free_bytes = uint64_t{system.f_bavail} * static_cast<uint64_t>(system.f_bsize);
    const std::string number = std::to_string(generation);
    const uint64_t next_bytes =
        generation != 0 ? file_bytes(path + "/table." + number) + file_bytes(path + "/cells." + number) : 0;
    const std::string text =
        mebibytes(free_bytes) + " free, the present generation takes " + mebibytes(next_bytes);
    // A generation is built beside the present one, and has more room when it was room that ran out.
    if (free_bytes < 2 * next_bytes) {
        findings.warn("memory", text, "make the file system larger: another generation may need twice that");
    } else {
        findings.ok("memory", text);
    }
}

}  // namespace apikeyd
