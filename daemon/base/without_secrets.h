// Text that may hold a key by mistake, made fit to be shown.

#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

#include "shm/key_form.h"

namespace apikeyd {

/// The same text with the secret of each key of the native form left out: what somebody wrote is repeated in
/// errors and logs, and a key may stand there by mistake.
inline std::string without_secrets(std::string_view text) {
    namespace shm = apikey::shm;
    constexpr size_t kIdEnd = 1 + shm::kIdLength;  // of "_<id>_<secret><crc>"
    constexpr size_t kLength = kIdEnd + 1 + shm::kSecretLength + shm::kCrcLength;
    const auto base62 = [](std::string_view part) {
        return std::all_of(part.begin(), part.end(), [](unsigned char c) { return isalnum(c) != 0; });
    };
    std::string masked;
    while (!text.empty()) {
        size_t shown = 1;
        size_t passed = 1;
        if (text.size() >= kLength && text[0] == '_' && text[kIdEnd] == '_' &&
            base62(text.substr(1, shm::kIdLength)) && base62(text.substr(kIdEnd + 1, kLength - kIdEnd - 1))) {
            shown = kIdEnd + 1;
            passed = kLength;
        }
        masked.append(text.substr(0, shown)).append(passed > shown ? "..." : "");
        text.remove_prefix(passed);
    }
    return masked;
}

}  // namespace apikeyd
