// Names of scopes: dotted words, as `reports.read`; the last word, or the only one, may be `*` for a branch.
// One rule for who defines and grants them, and for who asks.

#pragma once

#include <cstddef>
#include <string_view>

namespace apikey::shm {

/// True for words of a-z, 0-9, `_` and `-` with dots between them, the last of which may be `*`.
constexpr bool is_scope_name(std::string_view name) {
    size_t word = 0;  // its first character
    for (size_t at = 0; at <= name.size(); ++at) {
        const char c = at < name.size() ? name[at] : '.';
        if (c == '.') {
            if (at == word) {
                return false;
            }
            word = at + 1;
        } else if (c == '*') {
            if (at != word || at + 1 != name.size()) {
                return false;
            }
        } else if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-')) {
            return false;
        }
    }
    return true;
}

constexpr bool is_branch(std::string_view name) {
    return name.ends_with('*');
}

/// True when who has `granted` may do what `required` names: the same, or something in the branch.
constexpr bool scope_covers(std::string_view granted, std::string_view required) {
    if (!is_branch(granted)) {
        return granted == required && !granted.empty();
    }
    granted.remove_suffix(1);
    return required.starts_with(granted);
}

}  // namespace apikey::shm
