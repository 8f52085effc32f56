#include "source/fingerprint.h"

#include "shm/sha256.h"

namespace apikeyd {

Fingerprint fingerprint(std::string_view text) {
    Fingerprint digest{};
    apikey::shm::sha256_kernel().hash(text.data(), text.size(), digest.data());
    return digest;
}

}  // namespace apikeyd
