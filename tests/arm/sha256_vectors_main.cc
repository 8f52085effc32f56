// Runs the kernel that this processor got against the portable one and the published vectors, and says which
// it is.
//
//   sha256_vectors KERNEL     KERNEL: the name that must have been chosen
//
// Needs nothing but libc, so that it can be linked statically for another processor and run under emulation.

#include <cstdio>
#include <cstring>

#include "shm/sha256.h"
#include "tests/support/sha256_vectors.h"

namespace {

using apikey::shm::kDigestLength;
using apikey::shm::kSha256OneBlockMax;
using apikey::shm::Sha256Kernel;

constexpr size_t kLengthMax = 600;
constexpr size_t kOffsets = 16;
constexpr size_t kMillion = 1000000;

uint8_t content[kLengthMax + kOffsets];
char repeated[kMillion];
unsigned long checks = 0;
unsigned long failures = 0;

void fill_content() {
    uint32_t state = 1;  // any numbers will do: Knuth's linear congruential generator
    for (uint8_t& byte : content) {
        state = state * 1664525 + 1013904223;
        byte = static_cast<uint8_t>(state >> 24);
    }
}

void expect_same(const uint8_t* got, const uint8_t* want, const char* what, size_t a, size_t b) {
    ++checks;
    if (memcmp(got, want, kDigestLength) != 0) {
        ++failures;
        printf("wrong digest: %s, %zu, %zu\n", what, a, b);
    }
}

void check_vectors(const Sha256Kernel& kernel) {
    for (const apikey::tests::Sha256Vector& vector : apikey::tests::kSha256Vectors) {
        const size_t len = strlen(vector.message);
        for (size_t i = 0; i < vector.times; ++i) {
            memcpy(repeated + i * len, vector.message, len);
        }
        uint8_t digest[kDigestLength];
        kernel.hash(repeated, len * vector.times, digest);
        uint8_t want[kDigestLength];
        for (size_t i = 0; i < kDigestLength; ++i) {
            sscanf(vector.digest_hex + 2 * i, "%2hhx", &want[i]);
        }
        expect_same(digest, want, kernel.name, len, vector.times);
    }
}

void check_lengths(const Sha256Kernel& kernel, const Sha256Kernel& reference) {
    for (size_t len = 0; len <= kLengthMax; ++len) {
        for (size_t offset = 0; offset < kOffsets; ++offset) {
            uint8_t digest[kDigestLength];
            uint8_t want[kDigestLength];
            kernel.hash(content + offset, len, digest);
            reference.hash(content + offset, len, want);
            expect_same(digest, want, "length and offset", len, offset);
        }
    }
}

void check_pairs(const Sha256Kernel& kernel, const Sha256Kernel& reference) {
    for (size_t len_a = 0; len_a <= kSha256OneBlockMax + 2; ++len_a) {
        for (size_t len_b = 0; len_b <= kSha256OneBlockMax + 2; ++len_b) {
            uint8_t digest[2][kDigestLength];
            uint8_t want[2][kDigestLength];
            kernel.hash_pair(content, len_a, digest[0], content + len_a, len_b, digest[1]);
            reference.hash(content, len_a, want[0]);
            reference.hash(content + len_a, len_b, want[1]);
            expect_same(digest[0], want[0], "first of a pair", len_a, len_b);
            expect_same(digest[1], want[1], "second of a pair", len_a, len_b);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: sha256_vectors KERNEL\n");
        return 2;
    }
    const Sha256Kernel& kernel = apikey::shm::sha256_kernel();
    if (strcmp(kernel.name, argv[1]) != 0) {
        printf("this processor got the kernel '%s' instead of '%s'\n", kernel.name, argv[1]);
        return 1;
    }
    const Sha256Kernel* kernels[4];
    const size_t count = apikey::shm::sha256_kernels(kernels, 4);
    const Sha256Kernel& reference = *kernels[count - 1];
    fill_content();
    for (size_t i = 0; i < count; ++i) {
        check_vectors(*kernels[i]);
    }
    check_lengths(kernel, reference);
    check_pairs(kernel, reference);
    printf("kernel %s: %lu digests checked, %lu wrong\n", kernel.name, checks, failures);
    return failures == 0 ? 0 : 1;
}
