// Whatever bytes stand in a key set or a configuration: the parsers end, and what parses can be edited. Each
// edit must leave a text that parses to exactly the rows asked for.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "source/config_yaml.h"
#include "source/yaml_editor.h"
#include "source/yaml_source.h"

namespace {

using apikeyd::KeyRow;
using apikeyd::KeySetText;

void require(bool holds, const char* what, const std::string& text) {
    if (!holds) {
        std::fprintf(stderr, "%s:\n%s\n", what, text.c_str());
        std::abort();
    }
}

void require_rows(const KeySetText& set, const std::vector<KeyRow>& wanted, const char* what) {
    const std::string text = set.text();
    const auto rows = apikeyd::parse_key_rows(text, "k");
    require(rows && *rows == wanted && set.rows() == wanted, what, text);
}

void edit(KeySetText set) {
    std::vector<KeyRow> wanted = set.rows();
    if (!wanted.empty()) {
        KeyRow& row = wanted[wanted.size() / 2];
        row.state = row.state == apikeyd::KeyState::kRevoked ? apikeyd::KeyState::kActive
                                                             : apikeyd::KeyState::kRevoked;
        row.name = row.name == "a: b" ? "c" : "a: b";
        row.expires_s = row.expires_s ? std::nullopt : std::optional<int64_t>(1'900'000'000);
        row.metadata = row.metadata.empty() ? R"({"a":[1,"b"]})" : "";
        if (!set.upsert(row)) {
            return;  // a form that is refused, not one that is spoilt: nothing may have changed
        }
        require_rows(set, wanted, "after a change");
    }
    KeyRow added;
    added.id = "zzzzzzzzzzz0";
    added.digest.fill(0x5A);
    added.environment = "live";
    if (set.find(added.id) == nullptr && set.upsert(added)) {
        wanted.push_back(added);
        require_rows(set, wanted, "after an addition");
    }
    if (!wanted.empty() && set.erase(wanted.front().id)) {
        wanted.erase(wanted.begin());
        require_rows(set, wanted, "after a removal");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    (void)apikeyd::parse_config(text, "/c.yaml");
    if (const auto rows = apikeyd::parse_key_rows(text, "k")) {
        auto set = KeySetText::parse(text, "k");
        if (set) {
            require(set->text() == text && set->rows() == *rows, "taken apart", text);
            edit(*std::move(set));
        }
    }
    return 0;
}
