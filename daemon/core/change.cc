#include "core/change.h"

#include <algorithm>

namespace apikeyd {

namespace {

const std::string& name_of(const std::string& scope) {
    return scope;
}
template <typename Row>
const std::string& name_of(const Row& row) {
    return row.name;
}

template <typename Row>
void make(std::vector<Row>& rows, Change::Kind kind, const Row& row) {
    const auto there =
        std::find_if(rows.begin(), rows.end(), [&](const Row& one) { return name_of(one) == name_of(row); });
    if (kind == Change::Kind::kRemove) {
        if (there != rows.end()) {
            rows.erase(there);
        }
    } else if (there != rows.end()) {
        *there = row;
    } else {
        rows.push_back(row);
    }
}

}  // namespace

PolicySet with_changes(PolicySet set, const std::vector<PolicyChange>& changes) {
    for (const PolicyChange& change : changes) {
        if (const auto* plan = std::get_if<PlanRow>(&change.row)) {
            make(set.plans, change.kind, *plan);
        } else if (const auto* owner = std::get_if<OwnerRow>(&change.row)) {
            make(set.owners, change.kind, *owner);
        } else {
            make(set.scopes, change.kind, std::get<std::string>(change.row));
        }
    }
    return set;
}

}  // namespace apikeyd
