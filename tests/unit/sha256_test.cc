// The kernels against OpenSSL and the published vectors. Every kernel that this machine can run is held to
// the same.

#include "shm/sha256.h"

#include <gtest/gtest.h>
#include <openssl/sha.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/sha256_vectors.h"

namespace apikey::shm {
namespace {

using Digest = std::array<uint8_t, kDigestLength>;

constexpr size_t kLengthMax = 600;

Digest openssl_digest(const void* message, size_t len) {
    Digest digest;
    SHA256(static_cast<const unsigned char*>(message), len, digest.data());
    return digest;
}

Digest kernel_digest(const Sha256Kernel& kernel, const void* message, size_t len) {
    Digest digest;
    digest.fill(0xee);
    kernel.hash(message, len, digest.data());
    return digest;
}

std::vector<uint8_t> random_bytes(size_t len, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<uint8_t> bytes(len);
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<uint8_t>(random()); });
    return bytes;
}

std::string hex(const Digest& digest) {
    std::string text;
    for (const uint8_t byte : digest) {
        text += "0123456789abcdef"[byte >> 4];
        text += "0123456789abcdef"[byte & 15];
    }
    return text;
}

std::vector<const Sha256Kernel*> all_kernels() {
    std::vector<const Sha256Kernel*> kernels(4);
    kernels.resize(sha256_kernels(kernels.data(), kernels.size()));
    return kernels;
}

/// Two readable pages and one that kills: a message placed at `end() - len` may not be read past.
class GuardedPages {
  public:
    GuardedPages() {
        void* mapping = mmap(nullptr, 3 * page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapping == MAP_FAILED) {
            throw std::bad_alloc();
        }
        base_ = static_cast<uint8_t*>(mapping);
        if (mprotect(base_, page_, PROT_NONE) != 0 || mprotect(base_ + 2 * page_, page_, PROT_NONE) != 0) {
            throw std::bad_alloc();
        }
    }
    GuardedPages(const GuardedPages&) = delete;
    GuardedPages& operator=(const GuardedPages&) = delete;
    ~GuardedPages() { munmap(base_, 3 * page_); }

    uint8_t* begin() { return base_ + page_; }  // the byte before it is unreadable too
    uint8_t* end() { return base_ + 2 * page_; }

  private:
    size_t page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    uint8_t* base_ = nullptr;
};

class Sha256 : public testing::TestWithParam<const Sha256Kernel*> {};

TEST_P(Sha256, AnswersThePublishedVectors) {
    for (const tests::Sha256Vector& vector : tests::kSha256Vectors) {
        std::string message;
        for (size_t i = 0; i < vector.times; ++i) {
            message += vector.message;
        }
        EXPECT_EQ(hex(kernel_digest(*GetParam(), message.data(), message.size())), vector.digest_hex)
            << vector.times << " times '" << vector.message << "'";
    }
}

TEST_P(Sha256, AgreesWithOpensslForEveryLengthAndAlignment) {
    const std::vector<uint8_t> bytes = random_bytes(kLengthMax + 16, 1);
    for (size_t len = 0; len <= kLengthMax; ++len) {
        for (size_t offset = 0; offset < 16; ++offset) {
            const uint8_t* message = bytes.data() + offset;
            ASSERT_EQ(hex(kernel_digest(*GetParam(), message, len)), hex(openssl_digest(message, len)))
                << "length " << len << ", offset " << offset;
        }
    }
}

TEST_P(Sha256, TakesNoMessageAtAll) {
    EXPECT_EQ(hex(kernel_digest(*GetParam(), nullptr, 0)), tests::kSha256Vectors[0].digest_hex);
}

// The padding must not depend on what stands around the message.
TEST_P(Sha256, IgnoresTheBytesAround) {
    const std::vector<uint8_t> content = random_bytes(kLengthMax, 2);
    for (size_t len = 0; len <= kLengthMax; ++len) {
        std::vector<uint8_t> ones(len + 128, 0xff);
        std::vector<uint8_t> zeros(len + 128, 0);
        std::copy_n(content.begin(), len, ones.begin() + 64);
        std::copy_n(content.begin(), len, zeros.begin() + 64);
        ASSERT_EQ(hex(kernel_digest(*GetParam(), ones.data() + 64, len)),
                  hex(kernel_digest(*GetParam(), zeros.data() + 64, len)))
            << "length " << len;
    }
}

TEST_P(Sha256, ReadsNothingOutsideTheMessage) {
    GuardedPages pages;
    const std::vector<uint8_t> content = random_bytes(kLengthMax, 3);
    for (size_t len = 0; len <= kLengthMax; ++len) {
        const Digest expected = openssl_digest(content.data(), len);
        std::copy_n(content.begin(), len, pages.end() - len);
        ASSERT_EQ(kernel_digest(*GetParam(), pages.end() - len, len), expected)
            << "length " << len << ", at the end";
        std::copy_n(content.begin(), len, pages.begin());
        ASSERT_EQ(kernel_digest(*GetParam(), pages.begin(), len), expected)
            << "length " << len << ", at the start";
    }
}

// All pairs of one-block lengths and some longer ones, each message at an unreadable page.
TEST_P(Sha256, HashesPairs) {
    GuardedPages pages_a;
    GuardedPages pages_b;
    const std::vector<uint8_t> content = random_bytes(7 + 2 * 200, 4);
    std::vector<size_t> lengths;
    for (size_t len = 0; len <= kSha256OneBlockMax + 2; ++len) {
        lengths.push_back(len);
    }
    lengths.insert(lengths.end(), {63, 64, 119, 120, 200});
    for (const size_t len_a : lengths) {
        for (const size_t len_b : lengths) {
            const uint8_t* content_b = content.data() + 7 + len_a;
            uint8_t* message_a = std::copy_n(content.begin(), len_a, pages_a.end() - len_a) - len_a;
            uint8_t* message_b = std::copy_n(content_b, len_b, pages_b.end() - len_b) - len_b;
            Digest digest_a{};
            Digest digest_b{};
            GetParam()->hash_pair(message_a, len_a, digest_a.data(), message_b, len_b, digest_b.data());
            ASSERT_EQ(hex(digest_a), hex(openssl_digest(content.data(), len_a)))
                << len_a << " beside " << len_b;
            ASSERT_EQ(hex(digest_b), hex(openssl_digest(content_b, len_b))) << len_b << " beside " << len_a;
        }
    }
}

TEST_P(Sha256, WritesTheDigestAndNoMore) {
    std::array<uint8_t, kDigestLength + 32> single;
    std::array<uint8_t, kDigestLength + 32> pair;
    single.fill(0xa5);
    pair.fill(0xa5);
    Digest other;
    GetParam()->hash("abc", 3, single.data() + 13);
    GetParam()->hash_pair("abc", 3, other.data(), "abc", 3, pair.data() + 13);
    EXPECT_EQ(single, pair);
    EXPECT_TRUE(std::all_of(single.begin(), single.begin() + 13, [](uint8_t byte) { return byte == 0xa5; }));
    EXPECT_TRUE(std::all_of(single.end() - 19, single.end(), [](uint8_t byte) { return byte == 0xa5; }));
}

#ifdef APIKEY_TEST_STACK_RESIDUE
/// A stack of our own, so that what a function left on it can be read. (A thread's would not do: glibc gives
/// the pages back when the thread ends.)
class OwnStack {
  public:
    /// Runs `work` on the stack, cleared before.
    void run(std::function<void()> work) {
        std::fill(memory_.begin(), memory_.end(), uint8_t{0});
        work_ = std::move(work);
        current_ = this;
        ucontext_t context;
        ASSERT_EQ(getcontext(&context), 0);
        context.uc_stack.ss_sp = memory_.data();
        context.uc_stack.ss_size = memory_.size();
        context.uc_link = &back_;
        makecontext(
            &context, [] { current_->work_(); }, 0);
        EXPECT_EQ(swapcontext(&back_, &context), 0);
        current_ = nullptr;
    }

    /// How many four-byte pieces of `secret`, as they stand or with their bytes reversed, are on the stack.
    size_t pieces_of(const std::vector<uint8_t>& secret) const {
        size_t found = 0;
        for (size_t at = 0; at + 4 <= secret.size(); at += 4) {
            std::array<uint8_t, 4> piece;
            std::copy_n(secret.begin() + static_cast<std::ptrdiff_t>(at), 4, piece.begin());
            const bool plain = contains(piece);
            std::reverse(piece.begin(), piece.end());
            found += plain || contains(piece) ? 1 : 0;
        }
        return found;
    }

  private:
    bool contains(const std::array<uint8_t, 4>& piece) const {
        return std::search(memory_.begin(), memory_.end(), piece.begin(), piece.end()) != memory_.end();
    }

    static inline OwnStack* current_ = nullptr;
    std::function<void()> work_;
    ucontext_t back_{};
    std::vector<uint8_t> memory_ = std::vector<uint8_t>(size_t{256} * 1024);
};

// A core dump must not hold keys that the process has long forgotten. Judged on optimised builds only: the
// others keep every variable in memory.
TEST_P(Sha256, LeavesNoPieceOfTheMessageOnTheStack) {
    OwnStack stack;
    const std::vector<uint8_t> secret = random_bytes(kLengthMax, 5);
    std::array<Digest, 2> digests;
    stack.run([&secret] {
        volatile uint8_t copy[16];
        for (size_t i = 0; i < sizeof copy; ++i) {
            copy[i] = secret[i];
        }
    });
    ASSERT_GE(stack.pieces_of(secret), 4U) << "a plain copy is not found: this test would see nothing";
    for (const size_t len : {16U, 31U, 48U, 54U, 55U, 56U, 64U, 100U, 120U, 600U}) {
        stack.run([&] { GetParam()->hash(secret.data(), len, digests[0].data()); });
        EXPECT_EQ(stack.pieces_of(secret), 0U) << "length " << len;
    }
    for (const size_t len : {16U, 31U, 48U, 54U, 55U}) {
        stack.run([&] {
            GetParam()->hash_pair(secret.data(), len, digests[0].data(), secret.data() + 64, len,
                                  digests[1].data());
        });
        EXPECT_EQ(stack.pieces_of(secret), 0U) << "a pair of length " << len;
    }
}  // NOLINT(clang-analyzer-core.StackAddressEscape): run() has forgotten the stack
#endif

INSTANTIATE_TEST_SUITE_P(Kernels, Sha256, testing::ValuesIn(all_kernels()), [](const auto& kernel) {
    std::string name = kernel.param->name;
    name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
    return name;
});

TEST(Sha256Choice, IsTheFirstOfTheListInEveryThread) {
    const std::vector<const Sha256Kernel*> kernels = all_kernels();
    ASSERT_FALSE(kernels.empty());
    EXPECT_STREQ(kernels.back()->name, "portable");
    std::array<const Sha256Kernel*, 8> seen{};
    std::vector<std::thread> threads;
    threads.reserve(seen.size());
    for (const Sha256Kernel*& mine : seen) {
        threads.emplace_back([&mine] { mine = &sha256_kernel(); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    for (const Sha256Kernel* kernel : seen) {
        EXPECT_EQ(kernel, kernels.front());
    }
}

TEST(Sha256Choice, ListsNoMoreThanAsked) {
    const Sha256Kernel* kernels[2] = {nullptr, nullptr};
    EXPECT_EQ(sha256_kernels(kernels, 0), 0U);
    EXPECT_EQ(kernels[0], nullptr);
    EXPECT_EQ(sha256_kernels(kernels, 1), 1U);
    EXPECT_EQ(kernels[1], nullptr);
}

#if defined(__x86_64__)
// The compiler's own reading of CPUID is a second opinion on ours.
TEST(Sha256Choice, UsesShaNiWhereTheProcessorHasIt) {
    unsigned has_sha = 0;
    unsigned eax = 7;
    unsigned ecx = 0;
    unsigned edx = 0;
    __asm__("cpuid" : "+a"(eax), "=b"(has_sha), "+c"(ecx), "=d"(edx));
    const bool expected = (has_sha >> 29 & 1) != 0 && __builtin_cpu_supports("sse4.1") != 0 &&
                          __builtin_cpu_supports("ssse3") != 0;
    EXPECT_STREQ(sha256_kernel().name, expected ? "sha-ni" : "portable");
}
#endif

}  // namespace
}  // namespace apikey::shm
