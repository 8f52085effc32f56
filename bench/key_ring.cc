// The keys of a run: read from the file that `apikeyctl gen` wrote, and made up.

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/errno_text.h"
#include "base/file_io.h"
#include "base/owned_fd.h"
#include "bench/live_report.h"
#include "shm/key_form.h"

namespace apikey::bench {
namespace {

using apikeyd::Result;

constexpr off_t kFileBytesMax = off_t{8} << 30;
constexpr size_t kUnknownKeys = size_t{1} << 14;
constexpr size_t kSwitchedMax = 256;  // keys that the writer turns on and off
constexpr char kUnknownPrefix[] = "ak_live";
constexpr size_t kUnknownPrefixLength = sizeof kUnknownPrefix - 1;
constexpr size_t kUnknownKeyLength = kUnknownPrefixLength + 1 + shm::kNativeTailLength;

Result<std::vector<char>> read_file(const std::string& path) {
    const auto failure = [&](int error) { return apikeyd::fail(path + ": " + apikeyd::errno_text(error)); };
    apikeyd::OwnedFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (!file.is_open() || fstat(file.get(), &status) != 0) {
        return failure(errno);
    }
    if (!S_ISREG(status.st_mode) || status.st_size > kFileBytesMax) {
        return apikeyd::fail(path + ": not a file of at most 8 GiB");
    }
    std::vector<char> bytes(static_cast<size_t>(status.st_size));
    const ssize_t have = apikeyd::read_all(file.get(), bytes.data(), bytes.size());
    if (have < 0) {
        return failure(errno);
    }
    bytes.resize(static_cast<size_t>(have));
    return bytes;
}

/// One key a line; the last line feed may be missing. Errors name the line and repeat nothing of it.
Result<std::vector<apikey_key>> split(const std::vector<char>& bytes, const std::string& path) {
    std::vector<apikey_key> keys;
    for (const char *at = bytes.data(), *end = at + bytes.size(); at != end;) {
        const char* line_end = std::find(at, end, '\n');
        const auto length = static_cast<size_t>(line_end - at);
        if (length == 0 || length > APIKEY_KEY_MAX) {
            return apikeyd::fail(path + ":" + std::to_string(keys.size() + 1) + ": " +
                                 std::to_string(length) + " bytes; a key has 1 to " +
                                 std::to_string(APIKEY_KEY_MAX) + ", one a line");
        }
        keys.push_back({at, length});
        at = line_end == end ? end : line_end + 1;
    }
    if (keys.empty()) {
        return apikeyd::fail(path + ": no keys; `apikeyctl gen` writes one a line");
    }
    return keys;
}

/// 160 random bits each: that one of them is in a key set will not happen.
Result<void> make_unknown(KeyRing* ring) {
    ring->unknown_bytes.resize(kUnknownKeys * kUnknownKeyLength);
    for (size_t i = 0; i < kUnknownKeys;) {
        std::array<uint8_t, 96> random;
        if (getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
            return apikeyd::fail("cannot draw random bytes: " + apikeyd::errno_text(errno));
        }
        char* at = ring->unknown_bytes.data() + i * kUnknownKeyLength;
        if (shm::native_key_make(kUnknownPrefix, kUnknownPrefixLength, random.data(), random.size(), at) ==
            kUnknownKeyLength) {
            ring->unknown.push_back({at, kUnknownKeyLength});
            ++i;
        }
    }
    return {};
}

}  // namespace

Result<KeyRing> make_key_ring(const LiveOptions& options) {
    auto bytes = read_file(options.keys_path);
    if (!bytes) {
        return tl::unexpected(bytes.error());
    }
    KeyRing ring;
    ring.bytes = std::move(*bytes);
    auto known = split(ring.bytes, options.keys_path);
    if (!known) {
        return tl::unexpected(known.error());
    }
    ring.known = std::move(*known);
    if (auto made = make_unknown(&ring); !made) {
        return tl::unexpected(made.error());
    }
    if (options.writer_rate_per_s != 0) {
        ring.switched = std::clamp<size_t>(ring.known.size() / 10, 1, kSwitchedMax);
    }
    return ring;
}

}  // namespace apikey::bench
