// Keys in a text of one record a line, as other systems and `export` write them.

#pragma once

#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "source/key_row.h"
#include "tools/faults.h"

namespace apikeyd {

enum class ImportForm : uint8_t { kCsv, kJsonLines };

struct ImportedRow {
    size_t line;  ///< from 1
    KeyRow row;
};

/// `standard input:17: `
std::string import_place(size_t line);
/// That, and what is wrong there, without the values that it quotes so far as they are as long as a key: one
/// may stand in another column.
std::string import_fault(size_t line, std::string what);

/// The rows of `text`. Fields are those of a key set, in CSV named by the first line, with spaces between
/// scopes, addresses and limits; what is empty or null is left out. `key`, in place of `sha256`, is a
/// plaintext: it is hashed and wiped, in `text` too, and no error repeats it; one with fewer than 128 random
/// bits is a fault unless `allow_weak`. A key that is not of the native form is foreign, and is given an id.
/// What a row says is checked as a key set's is; what the set defines is not known here. `read` is told how
/// many records were looked at so far. `text` is empty afterwards.
std::deque<ImportedRow> read_import(std::string& text, ImportForm form, bool allow_weak, Faults& faults,
                                    const std::function<void(size_t records)>& read);

/// How many random bits a key of these characters can have at most, if they were drawn evenly from the
/// digits, the letters of either case and the other characters, so far as they are used.
double random_bits_max(std::string_view key);

}  // namespace apikeyd
