// A key at the one moment when its plaintext exists here: drawn, shown once, wiped.

#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "shm/key_form.h"
#include "source/key_row.h"
#include "tools/outcome.h"
#include "tools/output.h"

namespace apikeyd {

/// Keeps this process's memory out of core dumps and away from other processes of its user. For every verb
/// that holds a plaintext, before it does.
Outcome guard_plaintext();

/// True for 1 to 5 characters a-z0-9: the environment stands in a native key's prefix.
bool environment_fits(const std::string& environment);
inline constexpr const char* kEnvironmentWanted = "want 1 to 5 characters a-z and 0-9, as in live or test";

/// Owns one plaintext and wipes it in the end. Never copied, so that there is one place to wipe.
class NewKey {
  public:
    NewKey() = default;
    ~NewKey();
    NewKey(const NewKey&) = delete;
    NewKey& operator=(const NewKey&) = delete;

    /// Draws `ak_<environment>_…` with random bytes from the kernel, and puts id, digest and environment into
    /// `row`.
    Outcome draw(const std::string& environment, KeyRow& row);

    /// The plaintext: to be put where it is wiped as well.
    [[nodiscard]] std::string_view text() const { return {text_.data(), length_}; }

    /// Prints the key: alone on a line, or {"id":…,"key":…}, or CSV. The bytes go straight from this object
    /// to the descriptor.
    Outcome print(OutputForm form, const std::string& id) const;

  private:
    std::array<char, apikey::shm::kNativeKeyLengthMax> text_{};
    size_t length_ = 0;
};

}  // namespace apikeyd
