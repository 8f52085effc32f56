#include "source/fingerprint.h"

#include <cstring>

#include "shm/sha256.h"

namespace apikeyd {

Fingerprint fingerprint(std::string_view text) {
    Fingerprint digest{};
    apikey::shm::sha256_kernel().hash(text.data(), text.size(), digest.data());
    return digest;
}

uint64_t fingerprint_word(const Fingerprint& whole) {
    uint64_t word = 0;
    std::memcpy(&word, whole.data(), sizeof word);
    return word;
}

}  // namespace apikeyd
