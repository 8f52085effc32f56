// A daemon as its fleet knows it.

#pragma once

#include <cstdint>
#include <string>

namespace apikeyd {

struct ServingHost {
    std::string name;
    std::string version;
    /// Of where it serves: the same for the daemon that is started after this one, and for no other.
    std::string place_id;
    /// It tells of itself more often than this, or is taken to be silent.
    uint32_t silent_ms_max = 15'000;
};

}  // namespace apikeyd
