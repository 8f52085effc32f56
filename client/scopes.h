// Required expressions of scopes: compiled once, evaluated as bit operations on what a key is granted.
//
// A name is granted by every scope that covers it: itself and the branches above it. Which bits those are is
// the table's to say, so each table (and each name it adds) has masks of its own; the last two that were
// worked out are kept with the expression.

#pragma once

#include "apikey/apikey.h"
#include "shm/policy_reader.h"

struct apikey_scopes {
    static constexpr unsigned kNamesMax = 32;
    static constexpr unsigned kStepsMax = 2 * kNamesMax - 1;
    static constexpr unsigned kMaskWords = apikey::shm::kScopesMax / 64;

    /// A step of the expression in postfix form: a name's number, or one of these.
    static constexpr unsigned char kAnd = 0x80;
    static constexpr unsigned char kOr = 0x81;

    struct Masks {
        uint64_t of_name[kNamesMax][kMaskWords];
    };
    /// Masks that were worked out, as a sequence lock has them: readers that meet a writer, or another
    /// table's masks, work them out for themselves and wait for nobody.
    struct Kept {
        apikey::shm::Atomic<uint64_t> table;  ///< key_of(), which only rises; 0: none, kBusy: being written
        apikey::shm::Atomic<uint64_t> of_name[kNamesMax][kMaskWords];
    };
    static constexpr uint64_t kBusy = ~uint64_t{0};

    // Written by apikey_scopes_compile() and then only read.
    unsigned char steps[kStepsMax];
    unsigned step_count;
    char names[kNamesMax][apikey::shm::kScopeNameBytes];  ///< NUL-padded
    unsigned name_count;

    Kept kept[2];
};

namespace apikey::client {

/// True when a key with these scopes of this table may do what the expression asks for. Wait-free; makes no
/// syscall and allocates nothing. Thread-safe.
bool grants(const shm::TableView& table, const uint64_t (&granted)[apikey_scopes::kMaskWords],
            apikey_scopes* required);

/// `table`: nullptr when there is none to look names up in. See apikey_scopes_compile().
apikey_result compile_scopes(const shm::TableView* table, const char* expression, apikey_scopes* out,
                             size_t* error_offset);

}  // namespace apikey::client
