#include "client/scopes.h"

#include <cstring>
#include <string_view>

#include "shm/scope_name.h"

namespace apikey::client {
namespace {

using shm::kScopeNameBytes;

/// Which masks of a table these are: names are only added, so their number tells.
uint64_t key_of(const shm::TableView& table) {
    // SYNC scope-named: acquire; pairs with PolicyWriter::scope(). So many names are complete.
    const uint64_t names = table.header().scopes_used.load(std::memory_order_acquire);
    return uint64_t{table.generation} << 32 | (names + 1);  // not 0
}

std::string_view text_of(const char (&padded)[kScopeNameBytes]) {
    return {padded, strnlen(padded, kScopeNameBytes)};
}

void work_out(const shm::TableView& table, uint64_t key, const apikey_scopes& expression,
              apikey_scopes::Masks* masks) {
    const uint64_t named = static_cast<uint32_t>(key) - 1;
    const uint64_t count = named < table.scope_count ? named : table.scope_count;
    std::memset(masks, 0, sizeof *masks);
    for (uint64_t bit = 0; bit < count; ++bit) {
        shm::ScopeName scope;
        shm::read_plain(&scope, &table.scopes[bit], sizeof scope);
        for (unsigned name = 0; name < expression.name_count; ++name) {
            if (shm::scope_covers(text_of(scope.text), text_of(expression.names[name]))) {
                masks->of_name[name][bit / 64] |= uint64_t{1} << bit % 64;
            }
        }
    }
}

/// Copies masks that are kept for this table; false where there are none, or not any more.
bool read_kept(const apikey_scopes::Kept& kept, uint64_t key, unsigned names, apikey_scopes::Masks* masks) {
    // SYNC masks-kept: acquire, for the masks that were complete before this key.
    if (kept.table.load(std::memory_order_acquire) != key) {
        return false;
    }
    for (unsigned name = 0; name < names; ++name) {
        for (unsigned word = 0; word < apikey_scopes::kMaskWords; ++word) {
            // Acquire: one of a later writer's has its kBusy seen below.
            masks->of_name[name][word] = kept.of_name[name][word].load(std::memory_order_acquire);
        }
    }
    return kept.table.load(std::memory_order_relaxed) == key;
}

void keep(apikey_scopes::Kept& kept, uint64_t key, unsigned names, const apikey_scopes::Masks& masks) {
    uint64_t before = kept.table.load(std::memory_order_relaxed);
    // Only ever replaced by a later table's, or one's with more names: a reader that sees the same key twice
    // has seen no other masks in between. kBusy is above all keys.
    if (before >= key ||
        // SYNC masks-kept: acquire, so that two writers' masks do not mix.
        !kept.table.compare_exchange_strong(before, apikey_scopes::kBusy, std::memory_order_acquire,
                                            std::memory_order_relaxed)) {
        return;  // another thread has kept its own
    }
    for (unsigned name = 0; name < names; ++name) {
        for (unsigned word = 0; word < apikey_scopes::kMaskWords; ++word) {
            // Release: after kBusy.
            kept.of_name[name][word].store(masks.of_name[name][word], std::memory_order_release);
        }
    }
    kept.table.store(key, std::memory_order_release);  // SYNC masks-kept
}

bool evaluate(const apikey_scopes& expression, const uint64_t (&granted)[apikey_scopes::kMaskWords],
              const apikey_scopes::Masks& masks) {
    uint64_t stack = 0;  // its top is the lowest bit
    for (unsigned i = 0; i < expression.step_count; ++i) {
        const unsigned char step = expression.steps[i];
        if (step == apikey_scopes::kAnd) {
            stack = (stack >> 1 & ~uint64_t{1}) | (stack & stack >> 1 & 1);
        } else if (step == apikey_scopes::kOr) {
            stack = (stack >> 1) | (stack & 1);
        } else {
            uint64_t common = 0;
            for (unsigned word = 0; word < apikey_scopes::kMaskWords; ++word) {
                common |= granted[word] & masks.of_name[step][word];
            }
            stack = stack << 1 | (common != 0 ? 1 : 0);
        }
    }
    return (stack & 1) != 0;
}

// -------------------------------------------------------------------------------------------------------------
// compiling

bool is_space(char c) {
    return c == ' ' || c == '\t';
}

bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == '*';
}

/// True for what the key set defines or grants, and for a branch that something defined is in.
bool is_defined(const shm::TableView& table, std::string_view required) {
    const uint64_t used = table.header().scopes_used.load(std::memory_order_acquire);  // SYNC scope-named
    for (uint64_t bit = 0; bit < used && bit < table.scope_count; ++bit) {
        shm::ScopeName scope;
        shm::read_plain(&scope, &table.scopes[bit], sizeof scope);
        const std::string_view name = text_of(scope.text);
        if (name == required || (!shm::is_branch(name) && shm::scope_covers(required, name))) {
            return true;
        }
    }
    return false;
}

/// From infix to postfix by a stack of operators (E. Dijkstra's shunting yard, 1961).
class Compiler {
  public:
    Compiler(const shm::TableView* table, const char* text, apikey_scopes* out)
        : table_(table), text_(text), out_(out) {}

    apikey_result run() {
        bool operand_next = true;
        for (;;) {
            while (is_space(text_[at_])) {
                ++at_;
            }
            const char c = text_[at_];
            if (operand_next && c == '(') {
                if (!push('(')) {
                    return APIKEY_BAD_EXPRESSION;
                }
                ++at_;
            } else if (operand_next) {
                if (const apikey_result named = name(); named != APIKEY_OK) {
                    return named;
                }
                operand_next = false;
            } else if (c == ')') {
                pop_to_parenthesis();
                if (depth_ == 0) {
                    return APIKEY_BAD_EXPRESSION;
                }
                --depth_;
                ++at_;
            } else if (c == '\0') {
                pop_to_parenthesis();
                return depth_ == 0 ? APIKEY_OK : APIKEY_BAD_EXPRESSION;
            } else if (word_is("AND")) {
                while (depth_ > 0 && operators_[depth_ - 1] == '&') {
                    pop();
                }
                if (!push('&')) {
                    return APIKEY_BAD_EXPRESSION;
                }
                at_ += 3;
                operand_next = true;
            } else if (word_is("OR")) {
                pop_to_parenthesis();
                if (!push('|')) {
                    return APIKEY_BAD_EXPRESSION;
                }
                at_ += 2;
                operand_next = true;
            } else {
                return APIKEY_BAD_EXPRESSION;
            }
        }
    }
    size_t at() const { return at_; }

  private:
    bool push(char op) {
        if (depth_ == sizeof operators_) {
            return false;
        }
        operators_[depth_++] = op;
        return true;
    }
    void pop() {
        out_->steps[out_->step_count++] =
            operators_[--depth_] == '&' ? apikey_scopes::kAnd : apikey_scopes::kOr;
    }
    void pop_to_parenthesis() {
        while (depth_ > 0 && operators_[depth_ - 1] != '(') {
            pop();
        }
    }
    bool word_is(const char* word) const {
        const size_t length = std::strlen(word);
        const char after = std::strncmp(text_ + at_, word, length) == 0 ? text_[at_ + length] : 'x';
        return is_space(after) || after == '(' || after == '\0' || after == ')';
    }
    apikey_result name() {
        size_t length = 0;
        while (is_name_char(text_[at_ + length])) {
            ++length;
        }
        const std::string_view name(text_ + at_, length);
        if (length >= kScopeNameBytes || !shm::is_scope_name(name) ||
            out_->name_count == apikey_scopes::kNamesMax) {
            return APIKEY_BAD_EXPRESSION;
        }
        std::memcpy(out_->names[out_->name_count], name.data(), length);
        if (table_ != nullptr && !is_defined(*table_, name)) {
            return APIKEY_UNKNOWN_SCOPE;
        }
        out_->steps[out_->step_count++] = static_cast<unsigned char>(out_->name_count++);
        at_ += length;
        return APIKEY_OK;
    }

    const shm::TableView* table_;
    const char* text_;
    apikey_scopes* out_;
    size_t at_ = 0;
    char operators_[2 * apikey_scopes::kNamesMax];
    size_t depth_ = 0;
};

}  // namespace

bool grants(const shm::TableView& table, const uint64_t (&granted)[apikey_scopes::kMaskWords],
            apikey_scopes* required) {
    const uint64_t key = key_of(table);
    apikey_scopes::Kept& kept = required->kept[table.generation % 2];
    apikey_scopes::Masks masks;
    if (!read_kept(kept, key, required->name_count, &masks)) [[unlikely]] {
        work_out(table, key, *required, &masks);
        keep(kept, key, required->name_count, masks);
    }
    return evaluate(*required, granted, masks);
}

apikey_result compile_scopes(const shm::TableView* table, const char* expression, apikey_scopes* out,
                             size_t* error_offset) {
    Compiler compiler(table, expression, out);
    const apikey_result result = compiler.run();
    if (result != APIKEY_OK && error_offset != nullptr) {
        *error_offset = compiler.at();
    }
    return result;
}

}  // namespace apikey::client
