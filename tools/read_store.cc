#include "tools/read_store.h"

#include "source/store.h"

namespace apikeyd {

tl::expected<SourceContent, Failure> read_store(const Context& context, const RowSink& sink) {
    const auto store = context.store();
    if (!store) {
        return tl::unexpected(store.error());
    }
    auto content = make_source(*store)->load(std::nullopt, sink);
    if (!content) {
        return failed(Exit::kUnreachable, content.error());
    }
    for (const std::string& warning : (*content)->warnings) {
        say(warning);
    }
    return **std::move(content);
}

tl::expected<std::optional<KeyRow>, Failure> find_row(const Context& context, const std::string& id) {
    const auto store = context.store();
    if (!store) {
        return tl::unexpected(store.error());
    }
    auto found = make_store(*store)->find(id);
    if (!found) {
        return failed(Exit::kUnreachable, found.error());
    }
    return *std::move(found);
}

}  // namespace apikeyd
