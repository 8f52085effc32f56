// Where instances stand when nobody names a place, and what they may be called: for the library, the daemon
// and the tools alike. Constants only, since the library needs nothing but libc; base/instance_place.h puts
// them together for the others.

#pragma once

namespace apikey::shm {

inline constexpr char kInstanceDefault[] = "default";
/// Base directory of root's daemon, and so of the host.
inline constexpr char kSystemDirectory[] = "/run/apikeyd";
/// Base directory of any other user's own: this, and the uid in decimal.
inline constexpr char kUserDirectoryStem[] = "/dev/shm/apikeyd-";

/// True for the name of one directory within the base. This is what a name must be for a path to stay in its
/// place, and all that readers ask: a directory made by a daemon of another version is theirs to open. What a
/// new instance may be called is less, see is_instance_name() of the configuration.
constexpr bool is_plain_name(const char* name) {
    if (name[0] == '\0' || name[0] == '.') {
        return false;
    }
    for (; *name != '\0'; ++name) {
        if (*name == '/') {
            return false;
        }
    }
    return true;
}

}  // namespace apikey::shm
