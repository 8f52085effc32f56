#include "source/store.h"

namespace apikeyd {

Result<void> KeySet::add_policies(const PolicySet& more) {
    Result<void> added;
    for (auto scope = more.scopes.begin(); added && scope != more.scopes.end(); ++scope) {
        added = add_scope(*scope);
    }
    for (auto plan = more.plans.begin(); added && plan != more.plans.end(); ++plan) {
        added = upsert_plan(*plan);
    }
    for (auto owner = more.owners.begin(); added && owner != more.owners.end(); ++owner) {
        added = upsert_owner(*owner);
    }
    return added;
}

}  // namespace apikeyd
