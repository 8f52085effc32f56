#include "bench/generated_keys.h"

#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "bench/key_stream.h"

namespace apikey::bench {
namespace {

constexpr uint64_t kKnownSeed = uint64_t{1} << 40;
constexpr uint64_t kUnknownSeed = uint64_t{2} << 40;

GeneratedKey key_of(uint64_t family, uint64_t number) {
    uint64_t random[16];
    for (uint64_t i = 0; i < std::size(random); ++i) {
        random[i] = scatter(family + number * std::size(random) + i);
    }
    GeneratedKey key;
    if (shm::native_key_make(kGeneratedPrefix.data(), kGeneratedPrefix.size(),
                             reinterpret_cast<const uint8_t*>(random), sizeof random,
                             key.data()) != key.size()) {
        std::fprintf(stderr, "a generated key ran out of random bytes\n");
        std::exit(1);
    }
    return key;
}

}  // namespace

GeneratedKey known_key(uint64_t number) {
    return key_of(kKnownSeed, number);
}

GeneratedKey unknown_key(uint64_t number) {
    return key_of(kUnknownSeed, number);
}

}  // namespace apikey::bench
