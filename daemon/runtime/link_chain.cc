#include "runtime/link_chain.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <deque>
#include <string_view>

namespace apikeyd {
namespace {

constexpr int kLinksMax = 40;  // MAXSYMLINKS of Linux

enum class EntryKind { missing, directory, link, other };

EntryKind look(const std::string& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) {
        return EntryKind::missing;
    }
    if (S_ISDIR(status.st_mode)) {
        return EntryKind::directory;
    }
    return S_ISLNK(status.st_mode) ? EntryKind::link : EntryKind::other;
}

/// Puts the components of `path` in front of `rest`.
void prepend(std::string_view path, std::deque<std::string>& rest) {
    while (!path.empty()) {
        const std::size_t slash = path.rfind('/');
        const std::string_view name = slash == std::string_view::npos ? path : path.substr(slash + 1);
        if (!name.empty() && name != ".") {
            rest.emplace_front(name);
        }
        path = slash == std::string_view::npos ? std::string_view{} : path.substr(0, slash);
    }
}

std::string join(const std::string& directory, const std::string& name) {
    std::string path = directory;
    if (path != "/") {
        path += '/';
    }
    return path += name;
}

std::string parent(const std::string& directory) {
    const std::size_t slash = directory.rfind('/');
    return directory.substr(0, slash == 0 ? 1 : slash);
}

/// The target of a link, or nothing when it is no link any more.
std::string read_link(const std::string& path) {
    std::array<char, PATH_MAX> target;
    const ssize_t bytes = ::readlink(path.c_str(), target.data(), target.size());
    return bytes > 0 ? std::string(target.data(), static_cast<std::size_t>(bytes)) : std::string();
}

}  // namespace

bool walk_link_chain(const std::string& path, LinkChainVisitor& visitor) {
    std::deque<std::string> rest;
    prepend(path, rest);
    std::string directory(1, '/');
    int links = 0;
    while (!rest.empty()) {
        const std::string name = std::move(rest.front());
        rest.pop_front();
        if (name == "..") {
            directory = parent(directory);  // exact, as no link stands in `directory`
            continue;
        }
        visitor.passing(directory);
        const std::string entry = join(directory, name);
        EntryKind kind = look(entry);
        if (rest.empty() || kind != EntryKind::directory) {
            if (!visitor.deciding(directory, name)) {
                return false;
            }
            kind = look(entry);  // again: what changed before deciding() is not told
        }
        if (kind == EntryKind::directory) {
            directory = entry;
        } else if (kind == EntryKind::link) {
            const std::string target = read_link(entry);
            if (target.empty() || ++links > kLinksMax) {
                return true;
            }
            if (target.front() == '/') {
                directory.assign(1, '/');
            }
            prepend(target, rest);
        } else {
            return true;  // the file, or the end of what exists
        }
    }
    return true;
}

}  // namespace apikeyd
