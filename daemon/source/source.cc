#include "source/source.h"

#include "source/sqlite_file.h"
#include "source/store.h"
#include "source/yaml_file.h"

namespace apikeyd {

namespace {

template <typename Role>
std::unique_ptr<Role> make(const StoreName& name) {
    switch (name.kind) {
        case StoreKind::kYaml:
            return std::make_unique<YamlFile>(name.place);
        case StoreKind::kSqlite:
            return std::make_unique<SqliteFile>(name.place);
    }
    return nullptr;
}

}  // namespace

std::unique_ptr<Source> make_source(const StoreName& name) {
    return make<Source>(name);
}

std::unique_ptr<Store> make_store(const StoreName& name) {
    return make<Store>(name);
}

}  // namespace apikeyd
