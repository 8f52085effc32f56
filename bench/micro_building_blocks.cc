// What a validation is made of, each part alone: SHA-256 by every kernel here and by OpenSSL, the index hash,
// the checksum. Compare within one run only; from run to run a virtual machine drifts by a fifth.
//
// 'dependent': each message begins with bytes of the digest before it, so nothing overlaps; the others may
// overlap in the processor as far as one iteration fits into it.

#define OPENSSL_SUPPRESS_DEPRECATED  // SHA256_Init and so on: the fastest way into OpenSSL that there is
#include <benchmark/benchmark.h>
#include <openssl/sha.h>

#include <array>
#include <cstring>
#include <random>
#include <string>

#include "shm/index_hash.h"
#include "shm/key_form.h"
#include "shm/sha256.h"

namespace {

using apikey::shm::kDigestLength;
using apikey::shm::Sha256Kernel;

constexpr size_t kKeys = 64;  // few enough for the first-level cache: this times arithmetic, not memory
constexpr size_t kKeyLengthMax = 64;

/// Messages with equal lengths, as the keys of one installation have.
std::array<std::array<uint8_t, kKeyLengthMax>, kKeys> make_messages() {
    std::mt19937 random(1);
    std::array<std::array<uint8_t, kKeyLengthMax>, kKeys> messages{};
    for (auto& message : messages) {
        for (uint8_t& byte : message) {
            byte = static_cast<uint8_t>(random());
        }
    }
    return messages;
}

void per_message(benchmark::State& state, size_t messages) {
    state.counters["each"] =
        benchmark::Counter(static_cast<double>(state.iterations()) * static_cast<double>(messages),
                           benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void sha256_single(benchmark::State& state, const Sha256Kernel* kernel, size_t len) {
    const auto messages = make_messages();
    uint8_t digest[kDigestLength];
    size_t i = 0;
    for (auto _ : state) {
        kernel->hash(messages[i++ % kKeys].data(), len, digest);
        benchmark::DoNotOptimize(digest);
    }
    per_message(state, 1);
}

void sha256_dependent(benchmark::State& state, const Sha256Kernel* kernel, size_t len) {
    uint8_t message[kKeyLengthMax] = {};
    for (auto _ : state) {
        kernel->hash(message, len, message);
        benchmark::DoNotOptimize(message);
    }
    per_message(state, 1);
}

void sha256_pair(benchmark::State& state, const Sha256Kernel* kernel, size_t len) {
    const auto messages = make_messages();
    uint8_t digest[2][kDigestLength];
    size_t i = 0;
    for (auto _ : state) {
        kernel->hash_pair(messages[i % kKeys].data(), len, digest[0], messages[(i + 1) % kKeys].data(), len,
                          digest[1]);
        i += 2;
        benchmark::DoNotOptimize(digest);
    }
    per_message(state, 2);
}

void sha256_openssl(benchmark::State& state, size_t len) {
    const auto messages = make_messages();
    uint8_t digest[kDigestLength];
    size_t i = 0;
    for (auto _ : state) {
        SHA256(messages[i++ % kKeys].data(), len, digest);
        benchmark::DoNotOptimize(digest);
    }
    per_message(state, 1);
}

void sha256_openssl_low_level(benchmark::State& state, size_t len) {
    const auto messages = make_messages();
    uint8_t digest[kDigestLength];
    size_t i = 0;
    for (auto _ : state) {
        SHA256_CTX context;
        SHA256_Init(&context);
        SHA256_Update(&context, messages[i++ % kKeys].data(), len);
        SHA256_Final(digest, &context);
        benchmark::DoNotOptimize(digest);
    }
    per_message(state, 1);
}

std::string sample_key() {
    uint8_t random[64];
    for (size_t i = 0; i < sizeof random; ++i) {
        random[i] = static_cast<uint8_t>(i * 3);
    }
    std::string key(7 + 1 + apikey::shm::kNativeTailLength, '\0');
    key.resize(apikey::shm::native_key_make("ak_live", 7, random, sizeof random, key.data()));
    return key;
}

void index_hash_id(benchmark::State& state) {
    std::string key = sample_key();
    const char* id = key.data() + 8;
    uint64_t seed = 1;
    for (auto _ : state) {
        seed = apikey::shm::index_hash_id(id, seed);  // dependent
    }
    benchmark::DoNotOptimize(seed);
}

void index_hash_digest(benchmark::State& state) {
    const uint8_t digest[kDigestLength] = {1, 2, 3};
    uint64_t seed = 1;
    for (auto _ : state) {
        seed = apikey::shm::index_hash_digest(digest, seed);
    }
    benchmark::DoNotOptimize(seed);
}

void key_form_parse(benchmark::State& state) {
    const std::string key = sample_key();
    for (auto _ : state) {
        benchmark::ClobberMemory();
        benchmark::DoNotOptimize(apikey::shm::native_key_id(key.data(), key.size()));
    }
}

void key_form_checksum(benchmark::State& state) {
    const std::string key = sample_key();
    if (!apikey::shm::native_key_checksum_ok(key.data(), key.size())) {
        state.SkipWithError("the sample key is malformed");
        return;
    }
    for (auto _ : state) {
        benchmark::ClobberMemory();
        benchmark::DoNotOptimize(apikey::shm::native_key_checksum_ok(key.data(), key.size()));
    }
    per_message(state, 1);
}

const bool registered = [] {
    const Sha256Kernel* kernels[4];
    const size_t count = apikey::shm::sha256_kernels(kernels, 4);
    for (const size_t len : {size_t{48}, size_t{54}}) {
        const std::string suffix = std::string("/").append(std::to_string(len));
        for (size_t i = 0; i < count; ++i) {
            const std::string name = std::string("sha256/") + kernels[i]->name;
            const Sha256Kernel* kernel = kernels[i];
            benchmark::RegisterBenchmark((name + "/single" + suffix).c_str(), sha256_single, kernel, len);
            benchmark::RegisterBenchmark((name + "/dependent" + suffix).c_str(), sha256_dependent, kernel,
                                         len);
            benchmark::RegisterBenchmark((name + "/pair" + suffix).c_str(), sha256_pair, kernel, len);
        }
        benchmark::RegisterBenchmark(("sha256/openssl/single" + suffix).c_str(), sha256_openssl, len);
        benchmark::RegisterBenchmark(("sha256/openssl_low_level/single" + suffix).c_str(),
                                     sha256_openssl_low_level, len);
    }
    return true;
}();

BENCHMARK(index_hash_id);
BENCHMARK(index_hash_digest);
BENCHMARK(key_form_parse);
BENCHMARK(key_form_checksum);

}  // namespace
