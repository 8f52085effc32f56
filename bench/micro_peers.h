// Benchmarks of what else a server could ask for a key; see micro_peers.cc.

#pragma once

#include <string>
#include <vector>

#include "bench/private_set.h"

namespace apikey::bench {

/// Sockets of servers that somebody else has started and ends; empty: there is none, and it is left out.
struct PeerSockets {
    std::string redis;
    std::string memcached;
};

/// Loading has to end in bearable time: larger sets have no peers.
inline constexpr uint64_t kPeerKeysMax = 1'000'000;

/// Registers them for those of these sets that have at most kPeerKeysMax keys. The sets have to live until
/// the benchmarks end. Call once, before they run.
void register_peers(const std::vector<PrivateSet*>& sets, const PeerSockets& sockets);

}  // namespace apikey::bench
