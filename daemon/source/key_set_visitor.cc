#include "source/key_set_visitor.h"

#include <algorithm>
#include <cstring>

#include "base/hex.h"
#include "shm/key_form.h"
#include "shm/layout.h"
#include "source/key_rules.h"
#include "source/rfc3339.h"

namespace apikeyd {

namespace {

namespace shm = apikey::shm;

// Whatever is accepted here has room in a slot and its details: the limits are stated on both sides, since a
// source knows no table, and are held against each other here.
static_assert(kKeyIdLength == shm::kIdLength && kKeyIdLength <= shm::kDetailIdMax);
static_assert(kOwnerBytesMax <= shm::kDetailOwnerMax && kNameBytesMax <= shm::kDetailNameMax &&
              kMetadataBytesMax <= shm::kDetailMetadataMax);
static_assert(kEnvironmentBytesMax < shm::kEnvironmentNameBytes, "a NUL behind the name");
static_assert(kEnvironmentsMax < shm::kEnvironmentsMax, "the table's number 0 is 'none'");
static_assert(kScopesMax <= shm::kScopesMax && kScopeNameBytesMax < shm::kScopeNameBytes);
static_assert(kLimitNameBytesMax < shm::kLimitNameBytes && kLimitsMax <= shm::kMeterWordsMax);
static_assert(kCreatedMax_s <= int64_t{UINT32_MAX} &&
              sizeof(shm::DetailEntry::created_s) == sizeof(uint32_t));
static_assert(kExpiresMax_s < int64_t{shm::Meta::kNever});

constexpr std::string_view kKnownFields =
    "(want id, sha256, state, expires, plan, limits, addresses, environment, owner, name, created, foreign, "
    "scopes or metadata)";
constexpr std::string_view kKnownRoots = "(want version, scopes, plans, owners or keys)";

}  // namespace

size_t KeySetVisitor::IdHash::operator()(const std::array<char, kKeyIdLength>& id) const {
    return std::hash<std::string_view>{}({id.data(), id.size()});
}

size_t KeySetVisitor::DigestHash::operator()(const std::array<uint8_t, 32>& digest) const {
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

/// Ignores the next `nodes` whole nodes.
void KeySetVisitor::skip(unsigned nodes, At then) {
    at_ = At::kSkip;
    skip_nodes_ = nodes;
    skip_depth_ = 0;
    skip_then_ = then;
}

void KeySetVisitor::skipped_node() {
    if (skip_depth_ == 0 && --skip_nodes_ == 0) {
        at_ = skip_then_;
    }
}

std::string KeySetVisitor::label() const {
    // Before its id is known a row is named by its place in the list.
    return (row_.id.empty() ? "key number " + std::to_string(keys_ + 1) : "key " + row_.id) + ": ";
}

void KeySetVisitor::row_error(YamlPlace place, std::string_view what) {
    row_quality_ = Row::kBad;
    reporter_.add(place, label() + std::string(what));
}

void KeySetVisitor::field_error(YamlPlace place, std::string_view what) {
    row_error(place, std::string(kKeyFieldNames[static_cast<size_t>(field_)]) + ": " + std::string(what));
}

void KeySetVisitor::on_scalar(const YamlScalar& scalar) {
    switch (at_) {
        case At::kRoot:
            reporter_.add(scalar.place,
                          scalar.kind == YamlScalarKind::kNull
                              ? "the key set is empty (want 'keys:' with a list; 'keys: []' for no keys)"
                              : "the key set is one value (want a mapping with 'keys:')");
            at_ = At::kDone;
            break;
        case At::kRootName:
            root_name(scalar);
            break;
        case At::kVersion:
            version(scalar);
            at_ = At::kRootName;
            break;
        case At::kKeys:
            reporter_.add(scalar.kind == YamlScalarKind::kNull ? root_place_ : scalar.place,
                          scalar.kind == YamlScalarKind::kNull
                              ? "keys: empty (want a list of keys; 'keys: []' for no keys)"
                              : "keys: a single value (want a list of keys)");
            at_ = At::kRootName;
            break;
        case At::kItem:
            row_ = {};
            row_error(scalar.place, "no mapping (want '- id: ...' with its fields)");
            ++keys_;
            break;
        case At::kRowName:
            row_name(scalar);
            break;
        case At::kRowValue:
            row_value(scalar);
            at_ = At::kRowName;
            break;
        case At::kMetadata:
            metadata_->on_scalar(scalar);
            break;
        case At::kTree:
            if (tree_) {
                tree_->on_scalar(scalar);
            } else {  // where a list is wanted
                tree_.emplace().on_scalar(scalar);
                tree_done();
            }
            break;
        case At::kSkip:
            skipped_node();
            break;
        case At::kDone:
            break;
    }
}

/// What begins here is given to whoever wants it when it is complete.
void KeySetVisitor::begin_tree(YamlPlace place, bool map, At then) {
    tree_.emplace().on_begin(place, map);
    tree_then_ = then;
    at_ = At::kTree;
}

void KeySetVisitor::tree_done() {
    const YamlNode& node = tree_->root();
    at_ = tree_then_;
    if (at_ == At::kRowName) {
        read_field(node);
    } else if (node.kind == YamlNode::Kind::kScalar && node.scalar == YamlScalarKind::kNull) {
        // as if it were not there
    } else if (root_ == Root::kScopes) {
        policy_yaml_.read_scopes(node, policies_);
    } else if (root_ == Root::kPlans) {
        policy_yaml_.read_plans(node, policies_);
    } else {
        policy_yaml_.read_owners(node, policies_);
    }
    tree_.reset();
}

/// A field of a key that is a list.
void KeySetVisitor::read_field(const YamlNode& node) {
    const bool ok = field_ == KeyField::kScopes      ? policy_yaml_.read_granted(node, label(), terms_)
                    : field_ == KeyField::kAddresses ? policy_yaml_.read_addresses(node, label(), terms_)
                                                     : policy_yaml_.read_overrides(node, label(), terms_);
    row_quality_ = ok ? row_quality_ : Row::kBad;
}

void KeySetVisitor::root_name(const YamlScalar& scalar) {
    root_place_ = scalar.place;
    const auto* const found = std::find(kRootNames.begin(), kRootNames.end(), scalar.text);
    if (found == kRootNames.end()) {
        reporter_.add(scalar.place,
                      "unknown field " + yaml_quote(scalar.text) + " " + std::string(kKnownRoots));
        skip(1, At::kRootName);
        return;
    }
    root_ = static_cast<Root>(found - kRootNames.begin());
    bool& seen = seen_[static_cast<size_t>(root_)];
    if (seen) {
        reporter_.add(scalar.place, std::string(scalar.text) + ": stands twice (want it once)");
        skip(1, At::kRootName);
        return;
    }
    seen = true;
    tree_then_ = At::kRootName;
    at_ = root_ == Root::kVersion ? At::kVersion : root_ == Root::kKeys ? At::kKeys : At::kTree;
}

void KeySetVisitor::version(const YamlScalar& scalar) {
    if (scalar.kind != YamlScalarKind::kPlain || scalar.text != "1") {
        reporter_.add(scalar.kind == YamlScalarKind::kNull ? root_place_ : scalar.place,
                      "version: " + yaml_quote(scalar.text) + " is no version known here (want 1)");
    }
}

void KeySetVisitor::row_name(const YamlScalar& scalar) {
    name_place_ = scalar.place;
    const auto* const found = std::find(kKeyFieldNames.begin(), kKeyFieldNames.end(), scalar.text);
    if (found == kKeyFieldNames.end()) {
        row_error(scalar.place, "unknown field " + yaml_quote(scalar.text) + " " + std::string(kKnownFields));
        skip(1, At::kRowName);
        return;
    }
    field_ = static_cast<KeyField>(found - kKeyFieldNames.begin());
    if (has(field_)) {
        field_error(scalar.place, "stands twice in one key (want it once)");
        skip(1, At::kRowName);
        return;
    }
    fields_ |= 1u << static_cast<unsigned>(field_);
    at_ = At::kRowValue;
}

void KeySetVisitor::row_value(const YamlScalar& scalar) {
    // A value that is not there has the place of what comes next; its name is the better place to show.
    const YamlPlace place = scalar.kind == YamlScalarKind::kNull ? name_place_ : scalar.place;
    switch (field_) {
        case KeyField::kId:
            return set_id(scalar, place);
        case KeyField::kSha256:
            return set_sha256(scalar, place);
        case KeyField::kState:
            return set_state(scalar, place);
        case KeyField::kExpires:
            return set_time(scalar, place, true);
        case KeyField::kEnvironment:
            return set_environment(scalar, place);
        case KeyField::kOwner:
            return set_text(scalar, place, kOwnerBytesMax, row_.owner);
        case KeyField::kName:
            return set_text(scalar, place, kNameBytesMax, row_.name);
        case KeyField::kCreated:
            return set_time(scalar, place, false);
        case KeyField::kForeign:
            return set_foreign(scalar, place);
        case KeyField::kPlan:
            if (scalar.kind != YamlScalarKind::kNull &&
                !policy_yaml_.read_plan_name(std::string(scalar.text), place, label(), terms_)) {
                row_quality_ = Row::kBad;
            }
            return;
        case KeyField::kLimits:
        case KeyField::kAddresses:
        case KeyField::kScopes:
            if (scalar.kind != YamlScalarKind::kNull) {
                field_error(place, yaml_quote(scalar.text) + " is no list (want [...])");
            }
            return;
        case KeyField::kMetadata:
            if (scalar.kind != YamlScalarKind::kNull) {
                field_error(place, yaml_quote(scalar.text) + " is no mapping (want {name: value, ...})");
            }
            return;
    }
}

void KeySetVisitor::set_id(const YamlScalar& scalar, YamlPlace place) {
    if (const auto fault = key_id_fault(scalar.text)) {
        return field_error(place, *fault);
    }
    row_.id = scalar.text;
    std::array<char, kKeyIdLength> id{};
    std::copy(scalar.text.begin(), scalar.text.end(), id.begin());
    const auto [entry, fresh] = id_lines_.emplace(id, place.line);
    if (!fresh) {
        field_error(place,
                    "stands already in line " + std::to_string(entry->second) + " (want each id once)");
    }
}

void KeySetVisitor::set_sha256(const YamlScalar& scalar, YamlPlace place) {
    if (!from_hex(scalar.text, row_.digest)) {
        field_error(place, "no SHA-256 (want 64 hexadecimal digits; these are " +
                               std::to_string(scalar.text.size()) + " bytes)");
        return;
    }
    const auto [entry, fresh] = digest_lines_.emplace(row_.digest, place.line);
    if (!fresh) {
        field_error(place,
                    "the same digest as in line " + std::to_string(entry->second) + " (want each key once)");
    }
}

void KeySetVisitor::set_state(const YamlScalar& scalar, YamlPlace place) {
    if (const auto state = key_state_named(scalar.text)) {
        row_.state = *state;
    } else {
        field_error(place, state_fault(scalar.text));
    }
}

void KeySetVisitor::set_time(const YamlScalar& scalar, YamlPlace place, bool expiry) {
    if (scalar.kind == YamlScalarKind::kNull) {
        return;
    }
    const auto time_s = parse_rfc3339(scalar.text);
    if (!time_s) {
        const std::string_view never = expiry ? "; null for never" : "";
        field_error(place, yaml_quote(scalar.text) + " is no date (want RFC 3339, e.g. 2027-12-01T00:00:00Z" +
                               std::string(never) + ")");
        return;
    }
    const int64_t last_s = expiry ? kExpiresMax_s : kCreatedMax_s;
    if (const auto fault = time_fault(*time_s, last_s)) {
        return field_error(place, yaml_quote(scalar.text) + " " + *fault);
    }
    if (expiry) {
        row_.expires_s = *time_s;
    } else {
        row_.created_s = *time_s;
    }
}

void KeySetVisitor::set_environment(const YamlScalar& scalar, YamlPlace place) {
    if (const auto fault = environment_fault(scalar.text)) {
        return field_error(place, *fault);
    }
    if (environments_.size() == kEnvironmentsMax && !environments_.contains(scalar.text)) {
        return field_error(place, environments_fault(scalar.text));
    }
    environments_.emplace(scalar.text);
    row_.environment = scalar.text;
}

void KeySetVisitor::set_foreign(const YamlScalar& scalar, YamlPlace place) {
    const auto truth = scalar.kind == YamlScalarKind::kPlain ? core_schema_bool(scalar.text) : std::nullopt;
    if (!truth) {
        field_error(place,
                    yaml_quote(scalar.text) + " is no truth value (want true or false, without quotes)");
        return;
    }
    row_.foreign = *truth;
}

void KeySetVisitor::set_text(const YamlScalar& scalar, YamlPlace place, size_t bytes_max, std::string& out) {
    if (const auto fault = text_fault(scalar.text, bytes_max)) {
        field_error(place, *fault);
    } else {
        out = scalar.text;
    }
}

void KeySetVisitor::row_end() {
    for (const KeyField field : {KeyField::kId, KeyField::kSha256}) {
        if (!has(field)) {
            row_error(row_place_,
                      std::string(kKeyFieldNames[static_cast<size_t>(field)]) + ": missing (required)");
        }
    }
    if (row_quality_ == Row::kKept && row_.environment.empty() && !row_.foreign) {
        row_error(row_place_, std::string(kNoEnvironment));
    }
    ++keys_;
    if (row_quality_ == Row::kKept) {
        policy_yaml_.note_terms(terms_, row_place_, label());
        if (!terms_.empty()) {
            if (last_terms_ == nullptr ||
                *last_terms_ != terms_) {  // rows that agree often follow each other
                last_terms_ = std::make_shared<const KeyTerms>(std::move(terms_));
            }
            row_.terms = last_terms_;
        }
        sink_(row_);
    }
    row_ = {};
    terms_ = {};
    at_ = At::kItem;
}

void KeySetVisitor::on_map_begin(YamlPlace place, bool) {
    if (at_ == At::kRoot) {
        at_ = At::kRootName;
    } else if (at_ == At::kItem) {
        if (keys_ >= limits_.keys_max) {
            reporter_.add(place, "more than " + std::to_string(limits_.keys_max) + " keys (the limit)");
            throw YamlStop{};
        }
        row_ = {};
        terms_ = {};
        row_quality_ = Row::kKept;
        row_place_ = place;
        fields_ = 0;
        at_ = At::kRowName;
    } else {
        collection(place, true);
    }
}

void KeySetVisitor::on_sequence_begin(YamlPlace place, bool) {
    if (at_ == At::kKeys) {
        at_ = At::kItem;
    } else {
        collection(place, false);
    }
}

/// A collection where none, or another kind, is wanted; or a part of the metadata.
void KeySetVisitor::collection(YamlPlace place, bool map) {
    const std::string_view kind = map ? "a mapping" : "a list";
    switch (at_) {
        case At::kMetadata:
            return metadata_->on_begin(place, map);
        case At::kTree:
            return tree_ ? tree_->on_begin(place, map) : begin_tree(place, map, tree_then_);
        case At::kRowValue:
            if (field_ == KeyField::kScopes || field_ == KeyField::kAddresses ||
                field_ == KeyField::kLimits) {
                return begin_tree(place, map, At::kRowName);
            }
            if (field_ == KeyField::kMetadata && map) {
                metadata_.emplace(reporter_, label() + "metadata: ");
                metadata_->on_begin(place, true);
                at_ = At::kMetadata;
                return;
            }
            field_error(place,
                        std::string(kind) +
                            (field_ == KeyField::kMetadata ? " (want a mapping)" : " (want a single value)"));
            skip(1, At::kRowName);
            break;
        case At::kRowName:
            row_error(place, std::string(kind) + " as a field's name " + std::string(kKnownFields));
            skip(2, At::kRowName);
            break;
        case At::kItem:
            row_ = {};
            row_error(place, "a list (want '- id: ...' with its fields)");
            ++keys_;
            skip(1, At::kItem);
            break;
        case At::kRoot:
            reporter_.add(place, "the key set is a list (want a mapping with 'keys:')");
            skip(1, At::kDone);
            break;
        case At::kRootName:
            reporter_.add(place, std::string(kind) + " as a field's name " + std::string(kKnownRoots));
            skip(2, At::kRootName);
            break;
        case At::kVersion:
        case At::kKeys:
            reporter_.add(place, at_ == At::kKeys ? "keys: a mapping (want a list of keys)"
                                                  : "version: " + std::string(kind) + " (want 1)");
            skip(1, At::kRootName);
            break;
        case At::kSkip:
        case At::kDone:
            break;
    }
    ++skip_depth_;
}

void KeySetVisitor::on_sequence_end() {
    if (at_ == At::kSkip) {
        --skip_depth_;
        skipped_node();
    } else if (at_ == At::kMetadata) {
        metadata_->on_end();
    } else if (at_ == At::kTree) {
        tree_->on_end();
        if (tree_->done()) {
            tree_done();
        }
    } else if (at_ == At::kItem) {
        at_ = At::kRootName;
    }
}

void KeySetVisitor::on_map_end() {
    switch (at_) {
        case At::kSkip:
            --skip_depth_;
            skipped_node();
            break;
        case At::kMetadata:
            metadata_->on_end();
            if (metadata_->done()) {
                auto json = metadata_->take();
                row_quality_ = json ? row_quality_ : Row::kBad;
                row_.metadata = json.value_or(std::string{});
                metadata_.reset();
                at_ = At::kRowName;
            }
            break;
        case At::kRowName:
            row_end();
            break;
        case At::kTree:
            tree_->on_end();
            if (tree_->done()) {
                tree_done();
            }
            break;
        case At::kRootName:
            root_end();
            break;
        default:
            break;
    }
}

void KeySetVisitor::root_end() {
    if (!seen(Root::kKeys)) {
        reporter_.add({}, "keys: missing (want a list of keys; 'keys: []' for no keys)");
    }
    if (limits_.whole) {
        warnings_ = policy_yaml_.check_references(policies_);
    }
    at_ = At::kDone;
}

}  // namespace apikeyd
