#include "tools/read_store.h"

#include "source/store.h"

namespace apikeyd {

tl::expected<PolicySet, Failure> read_store(const Context& context, const RowSink& sink) {
    const auto store = context.store();
    if (!store) {
        return tl::unexpected(store.error());
    }
    auto content = make_source(*store)->load(std::nullopt, sink);
    if (!content) {
        return failed(Exit::kUnreachable, content.error());
    }
    return std::move((*content)->policies);
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
