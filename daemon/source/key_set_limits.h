// How large a key set may be, stated here and nowhere else: whoever reads, edits or makes one keeps to it.

#pragma once

#include <cstddef>
#include <cstdint>

namespace apikeyd {

/// The text of its file. Below 2 GiB, which is as far as yaml-cpp counts.
inline constexpr std::size_t kKeySetBytesMax = std::size_t{256} << 20;
/// Its rows, bad ones included. Good ones take more than 100 bytes each, so their text meets its limit first.
inline constexpr uint64_t kKeySetRowsMax = 16'000'000;
/// Of metadata: objects and lists within each other, the outermost counted.
inline constexpr unsigned kMetadataLevelsMax = 13;

}  // namespace apikeyd
