// What each field of a key has to be, whatever it was read from, and the words for what is not. Words stand
// behind the field's name and say what is wanted.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace apikeyd {

// nullopt when it is one.
/// Never shows the text: somebody may have pasted the key itself.
std::optional<std::string> key_id_fault(std::string_view id);
/// Empty is none, which a foreign key may have.
std::optional<std::string> environment_fault(std::string_view name);
/// An owner or a name: one line of plain text.
std::optional<std::string> text_fault(std::string_view text, std::size_t bytes_max);
/// Begins with "is": stands behind the time as it was written.
std::optional<std::string> time_fault(int64_t unix_s, int64_t last_s);

/// Of a word that key_state_named() does not know.
std::string state_fault(std::string_view word);
/// Of an environment that comes when the set has kEnvironmentsMax others.
std::string environments_fault(std::string_view name);

inline constexpr std::string_view kNoEnvironment = "environment: missing (required unless foreign: true)";

}  // namespace apikeyd
