// Where an instance's directory stands when no configuration and no option says so.

#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "shm/instance_place.h"

namespace apikeyd {

/// The base directory that a daemon of this user makes: /run/apikeyd for root, /dev/shm/apikeyd-<uid> for
/// others.
inline std::string default_directory(unsigned uid) {
    using namespace apikey::shm;
    return uid == 0 ? kSystemDirectory : kUserDirectoryStem + std::to_string(uid);
}

/// The base directory in which a server finds the instance when it names none (apikey_open): the system's
/// where the instance is there, else the caller's own.
inline std::string usual_directory(const std::string& instance) {
    struct stat status {};
    const std::string system = default_directory(0);
    const bool there = stat((system + '/' + instance).c_str(), &status) == 0 && S_ISDIR(status.st_mode);
    return there ? system : default_directory(geteuid());
}

}  // namespace apikeyd
