#include "source/source.h"

#include "source/postgres_store.h"
#include "source/sqlite_file.h"
#include "source/store.h"
#include "source/yaml_file.h"

namespace apikeyd {

std::unique_ptr<Source> make_source(const StoreName& name, std::optional<ServingHost> host) {
    switch (name.kind) {
        case StoreKind::kYaml:
            return std::make_unique<YamlFile>(name.place);
        case StoreKind::kSqlite:
            return std::make_unique<SqliteFile>(name.place);
        case StoreKind::kPostgres:
            return std::make_unique<PostgresStore>(name.place, std::move(host));
    }
    return nullptr;
}

std::unique_ptr<Store> make_store(const StoreName& name) {
    switch (name.kind) {
        case StoreKind::kYaml:
            return std::make_unique<YamlFile>(name.place);
        case StoreKind::kSqlite:
            return std::make_unique<SqliteFile>(name.place);
        case StoreKind::kPostgres:
            return std::make_unique<PostgresStore>(name.place);
    }
    return nullptr;
}

}  // namespace apikeyd
