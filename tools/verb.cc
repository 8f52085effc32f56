#include "tools/verb.h"

#include <algorithm>
#include <cctype>

namespace apikeyd {

void add_id(CLI::App& command, std::string& id) {
    const auto check = [](std::string& given) {
        const bool base62 =
            std::all_of(given.begin(), given.end(), [](unsigned char c) { return std::isalnum(c) != 0; });
        return given.size() == kKeyIdLength && base62
                   ? std::string()
                   : std::string(
                         "want a key's id, the 12 letters and digits between its last two underscores, and "
                         "never the whole key");
    };
    command.add_option("ID", id, "the key's id, 12 letters and digits")
        ->required()
        ->check(CLI::Validator(check, ""));
}

}  // namespace apikeyd
