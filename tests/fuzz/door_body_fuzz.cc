// Whatever body is sent to the admin door: reading it ends, what is wrong in it is named, and what nothing is
// wrong in makes a key that a key set can hold, and reads back as it is.

#include <boost/json/src.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "source/yaml_editor.h"
#include "source/yaml_source.h"
#include "tools/door/json_body.h"
#include "tools/door/key_fields.h"
#include "tools/operations/key_terms.h"

namespace {

using namespace apikeyd;

constexpr int64_t kNow_s = 1'800'000'000;

void require(bool holds, const char* what, const std::string& text) {
    if (!holds) {
        std::fprintf(stderr, "%s:\n%s\n", what, text.c_str());
        std::abort();
    }
}

HttpRequest request_with(std::string_view body) {
    HttpRequest request;
    request.method = "POST";
    request.content_type = "application/json";
    request.has_length = true;
    request.body.assign(body);
    return request;
}

KeyRow issued_row() {
    KeyRow row;
    row.id = "zzzzzzzzzzz0";
    row.digest.fill(0x5A);
    row.environment = "live";
    row.created_s = kNow_s;
    return row;
}

KeyRow row_with_all() {
    KeyRow row = issued_row();
    row.owner = "acme";
    row.name = "a: b";
    row.metadata = R"({"tier":3,"tags":["x"]})";
    row.expires_s = kNow_s + 1;
    return row;
}

void require_kept(KeyRow row, const std::string& body) {
    const KeyTerms& terms = terms_of(row);
    auto set = KeySetText::parse("version: 1\nkeys: []\n", "k");
    require(set.has_value(), "the empty key set", body);
    // What a key may name is defined in the set; here that is a plan which has its own limits.
    KeyTerms kept;
    kept.addresses = terms.addresses;
    if (!terms.overrides.empty() && set->upsert_plan({"p", terms.overrides})) {
        kept.plan = "p";
        kept.overrides = terms.overrides;
    }
    row.terms = row_terms(std::move(kept));
    require(set->upsert(row).has_value(), "no key set holds what was taken", body);
    const auto rows = parse_key_rows(set->text(), "k");
    require(rows && *rows == std::vector<KeyRow>{row}, "another key comes back", body);
}

void read_into(KeyRow row, std::string_view body) {
    const std::string text(body);
    auto read = JsonBody::read(request_with(body), true, {"application/json"});
    if (!read) {
        require(read.error().status == 400 && !read.error().body.empty(), "an answer of another kind", text);
        return;
    }
    read_key_fields(*read, row, kNow_s);
    const std::vector<ProblemPart> faults = read->faults();
    for (const ProblemPart& fault : faults) {
        require(!fault.detail.empty() && fault.pointer && fault.pointer->starts_with('/'),
                "a fault without its place", text);
    }
    if (faults.empty()) {
        require_kept(std::move(row), text);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view body(reinterpret_cast<const char*>(data), size);
    read_into(issued_row(), body);
    read_into(row_with_all(), body);
    return 0;
}
