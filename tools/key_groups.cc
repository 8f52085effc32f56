#include "tools/key_groups.h"

#include <algorithm>

namespace apikeyd {

void KeyGroups::add(const KeyRow& row) {
    if (row.id.size() != kKeyIdLength || !filter_.matches(row)) {
        return;
    }
    Key key{{}, 0};
    std::copy(row.id.begin(), row.id.end(), key.id.begin());
    if (by_ != GroupBy::kKey) {
        const std::string& name = by_ == GroupBy::kOwner ? row.owner : terms_of(row).plan;
        key.group = names_.try_emplace(name, static_cast<uint32_t>(names_.size())).first->second;
    }
    keys_.push_back(key);
}

void KeyGroups::seal() {
    std::sort(keys_.begin(), keys_.end());
}

std::optional<uint32_t> KeyGroups::find(std::string_view key_id) const {
    if (key_id.size() == kKeyIdLength) {
        Key wanted{{}, 0};
        std::copy(key_id.begin(), key_id.end(), wanted.id.begin());
        const auto found = std::lower_bound(keys_.begin(), keys_.end(), wanted);
        if (found != keys_.end() && found->id == wanted.id) {
            return found->group;
        }
    }
    return filter_.given() ? std::nullopt : std::optional<uint32_t>(0);
}

}  // namespace apikeyd
