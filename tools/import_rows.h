// Keys in a text of one record a line, as other systems and `export` write them.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "source/key_row.h"
#include "tools/outcome.h"

namespace apikeyd {

enum class ImportForm : uint8_t { kCsv, kJsonLines };

struct ImportedRow {
    size_t line;  ///< from 1
    KeyRow row;
};

/// What is wrong with a text, by line: the first twenty, and how many there are.
class ImportFaults {
  public:
    void add(size_t line, const std::string& what);
    [[nodiscard]] bool empty() const { return count_ == 0; }
    /// `standard input:17: what`, a line each, and that nothing was imported.
    [[nodiscard]] std::string text() const;

  private:
    std::vector<std::string> first_;
    size_t count_ = 0;
};

/// The rows of `text`. Fields are those of a key set, in CSV named by the first line, with spaces between
/// scopes, addresses and limits; what is empty or null is left out. `key`, in place of `sha256`, is a
/// plaintext: it is hashed and wiped, in `text` too, and no error repeats it; one with fewer than 128 random
/// bits is a fault unless `allow_weak`. A key that is not of the native form is foreign, and is given an id.
/// What a row says is checked as a key set's is; what the set defines is not known here.
std::vector<ImportedRow> read_import(std::string& text, ImportForm form, bool allow_weak,
                                     ImportFaults& faults);

/// How many random bits a key of these characters can have at most, if they were drawn evenly from the
/// digits, the letters of either case and the other characters, so far as they are used.
double random_bits_max(std::string_view key);

}  // namespace apikeyd
