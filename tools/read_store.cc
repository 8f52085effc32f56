#include "tools/read_store.h"

#include "source/key_set_limits.h"
#include "source/text_file.h"

namespace apikeyd {

tl::expected<PolicySet, Failure> read_store(const Context& context, const RowSink& sink) {
    const auto store = context.store_path();
    if (!store) {
        return tl::unexpected(store.error());
    }
    const Result<std::string> text = read_text_file(*store, kKeySetBytesMax);
    if (!text) {
        return failed(Exit::kUnreachable, text.error());
    }
    auto parsed = parse_key_set(*text, *store, sink);
    if (!parsed) {
        return failed(Exit::kUnreachable, parsed.error().joined());
    }
    return std::move(parsed->policies);
}

}  // namespace apikeyd
