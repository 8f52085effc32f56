#include "source/store_name.h"

#include <filesystem>
#include <system_error>

#include "postgres/place.h"
#include "source/yaml_events.h"

namespace apikeyd {

namespace {

namespace fs = std::filesystem;

/// What cannot be followed leads to itself.
fs::path led_to(const fs::path& path) {
    constexpr int kLinksMax = 40;  // as Linux has it
    std::error_code error;
    fs::path place = fs::absolute(path, error);
    for (int links = 0; !error && links < kLinksMax; ++links) {
        const fs::path canonical = fs::weakly_canonical(place, error);
        if (error) {
            break;
        }
        // Still a link: to what is not there, which weakly_canonical() does not follow.
        const fs::path target = fs::read_symlink(canonical, error);
        if (error) {
            return canonical;
        }
        place = canonical.parent_path() / target;
    }
    return place.empty() ? path : place;
}

}  // namespace

Result<StoreName> store_named(std::string_view text) {
    for (size_t kind = 0; kind < kStoreKindNames.size(); ++kind) {
        const size_t colon = kStoreKindNames[kind].size();
        if (text.size() <= colon + 1 || !text.starts_with(kStoreKindNames[kind]) || text[colon] != ':') {
            continue;
        }
        StoreName name{static_cast<StoreKind>(kind), std::string(text.substr(colon + 1))};
        const Result<void> usable = name.is_file() ? Result<void>() : check_postgres_place(name.place);
        return usable ? Result<StoreName>(std::move(name)) : tl::unexpected(usable.error());
    }
    // In another URI, and in libpq's `host=... password=...`, a part may be a password.
    const bool shown = text.find("//") == text.npos && text.find_first_of("@=%") == text.npos;
    const std::string given = shown ? yaml_quote(text) : "what may hold a password, so it is not shown";
    return fail(given + " (want yaml:PATH, sqlite:PATH or postgresql://HOST/DATABASE)");
}

bool same_place(const StoreName& a, const StoreName& b) {
    if (!a.is_file() || !b.is_file()) {
        return a.kind == b.kind && same_database(a.place, b.place);
    }
    return led_to(a.place) == led_to(b.place);
}

}  // namespace apikeyd
