#include "source/yaml_file.h"

#include "source/key_set_file.h"
#include "source/key_set_limits.h"
#include "source/text_file.h"
#include "source/yaml_editor.h"
#include "source/yaml_source.h"

namespace apikeyd {

Result<std::optional<SourceContent>> YamlFile::load(const std::optional<Fingerprint>& unless,
                                                    const RowSink& sink) {
    const Result<std::string> text = read_text_file(path_, kKeySetBytesMax);
    if (!text) {
        return tl::unexpected(text.error());
    }
    SourceContent content;
    content.fingerprint = fingerprint(*text);
    if (unless == content.fingerprint) {
        return std::nullopt;
    }
    auto parsed = parse_key_set(*text, path_, sink);
    if (!parsed) {
        return fail(parsed.error().joined());
    }
    content.keys = parsed->keys;
    content.policies = std::move(parsed->policies);
    content.warnings = std::move(parsed->warnings);
    return content;
}

Result<Rewrite> YamlFile::change(const Edit& edit, const ChangeOptions& options) {
    RewriteOptions rewrite{options.lock_wait_ms_max, kKeySetBytesMax, {}, options.then_locked};
    if (options.create) {
        rewrite.initial_text = KeySetText::empty_text();
    }
    return rewrite_file(
        path_,
        [&](std::string_view old_text) -> Result<std::string> {
            Result<KeySetText> set = KeySetText::parse(std::string(old_text), path_);
            if (!set) {
                return tl::unexpected(set.error());
            }
            if (const Result<void> edited = edit(*set); !edited) {
                return tl::unexpected(edited.error());
            }
            return set->text();
        },
        rewrite);
}

Result<std::optional<KeyRow>> YamlFile::find(std::string_view id) {
    std::optional<KeyRow> found;
    const auto content = load(std::nullopt, [&](KeyRow row) {
        if (row.id == id) {
            found = std::move(row);
        }
    });
    return content ? Result<std::optional<KeyRow>>(std::move(found)) : tl::unexpected(content.error());
}

}  // namespace apikeyd
