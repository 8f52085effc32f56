// Choosing where a generation's keys are at home.
//
// Hashed to lines of two slots at a load of 60%, one key in six finds its line full and stands in a later
// one: a second miss for each look-up of it. So the lines are taken in groups, and each group gets the seed,
// out of 256, under which the fewest of its keys are homeless: one in ninety is left. Readers load one more
// byte, of which a cache line serves a thousand keys, and miss once.
//
// Keys added later use the seed as it stands and probe on when their line is full.
//
// Source: hash and displace (R. E. Tarjan, A. Yao, "Storing a sparse table", 1979; D. Belazzougui, F.
// Botelho, M. Dietzfelbinger, "Hash, displace, and compress", 2009), with room for two keys and without the
// promise that every key fits. LAYOUT.md has the figures that it was chosen by.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace apikey::shm {

/// Writes the seeds of `seeds.size()` groups for keys with these hashes (in any order). About 60 trials a
/// group at a load of 60%, so it takes time: 3 s for 10 million keys, shared by so many threads, of which
/// this is one.
void choose_group_seeds(std::vector<uint64_t> hashes, std::span<uint8_t> seeds, unsigned threads = 1);

}  // namespace apikey::shm
