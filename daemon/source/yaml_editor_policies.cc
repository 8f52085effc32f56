// What stands beside the keys, edited: the text without its keys is changed and parsed, since plans and
// owners are few beside them, and what the keys refer to is looked at in their rows.

#include <algorithm>

#include "shm/scope_name.h"
#include "source/row_text.h"
#include "source/yaml_editor.h"

namespace apikeyd {

namespace {

template <typename Row>
auto row_named(std::vector<Row>& rows, const std::string& name) {
    return std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.name == name; });
}

/// The first line of a parser's error without `file:line:column: `, a place in a text that nobody has.
Error without_place(const std::string& file, const std::string& what, const Error& error) {
    const std::string line = error.message.substr(0, error.message.find('\n'));
    const size_t text = line.starts_with(file + ":") ? line.find(' ', file.size()) : std::string::npos;
    return {what + ": " + (text == std::string::npos ? line : line.substr(text + 1))};
}

Error odd_form(const std::string& file, const std::string& what) {
    return {file + ": " + what +
            ": what stands beside the keys is written in a form that cannot be edited (want each plan and "
            "owner in lines of its own, the first starting with '- ')"};
}

Result<void> used_by(const std::string& what, const std::string& users, const char* advice) {
    return fail(what + ": used by " + users + " (" + advice + ")");
}

}  // namespace

/// The set's text as it would be with an empty list of keys; in flow form all of it.
std::string KeySetText::without_keys() const {
    return flow_ ? head_ : head_ + empty_list_ + line_rest_ + tail_;
}

std::string KeySetText::count_keys(const KeyTest& is_one) const {
    size_t count = 0;
    const KeyRow* first = nullptr;
    for (const Piece& piece : pieces_) {
        if (piece.live && is_one(piece.row)) {
            first = count++ == 0 ? &piece.row : first;
        }
    }
    return count == 0 ? std::string() : std::to_string(count) + " keys, the first " + first->id;
}

Result<void> KeySetText::edit_policies(const std::string& what, const PolicySet& wanted,
                                       const PolicyEdit& edit) {
    const std::string text = without_keys();
    YamlLimits part = limits_;
    part.whole = false;
    const auto located = locate_key_set(text, file_, Locate::kSections, part);
    if (!located) {
        return tl::unexpected(located.error());
    }
    const auto edited = edit({text, located->spans, newline_});
    if (!edited) {
        return tl::unexpected(odd_form(file_, what));
    }
    if (!flow_) {
        return take_without_keys(what, *edited, wanted);
    }
    auto fresh = parse(*edited, file_, limits_);
    if (!fresh) {
        return tl::unexpected(without_place(file_, what, fresh.error()));
    }
    if (fresh->policies() != wanted || fresh->rows() != rows()) {
        return tl::unexpected(odd_form(file_, what));
    }
    *this = *std::move(fresh);
    return {};
}

/// Takes the parts of `text` when it says what is wanted.
Result<void> KeySetText::take_without_keys(const std::string& what, const std::string& text,
                                           const PolicySet& wanted) {
    YamlLimits part = limits_;
    part.whole = false;
    const auto located = locate_key_set(text, file_, Locate::kKeys, part);
    if (!located) {
        return tl::unexpected(without_place(file_, what, located.error()));
    }
    if (located->policies != wanted || !located->rows.empty()) {
        return tl::unexpected(odd_form(file_, what));
    }
    const size_t grown = this->text().size() + text.size() - without_keys().size();
    if (grown > limits_.file_bytes_max) {
        return fail(what + ": the key set would have more than " + std::to_string(limits_.file_bytes_max) +
                    " bytes (the limit)");
    }
    const KeySetSpans& spans = located->spans;
    const size_t rest_end = line_end(text, spans.keys.end);
    head_ = text.substr(0, spans.keys_colon_end);
    empty_list_ = text.substr(spans.keys_colon_end, spans.keys.end - spans.keys_colon_end);
    line_rest_ = text.substr(spans.keys.end, rest_end - spans.keys.end);
    tail_ = text.substr(rest_end);
    policies_ = wanted;
    return {};
}

/// Whether all keys that have this plan can have it like this.
Result<void> KeySetText::check_terms_with(const std::string& what, const PlanRow& plan) const {
    for (const Piece& piece : pieces_) {
        const KeyTerms& terms = terms_of(piece.row);
        if (!piece.live || terms.plan != plan.name || terms.overrides.empty()) {
            continue;
        }
        if (const auto fault = terms_fault(terms, &plan, policies_.scopes)) {
            return fail(what + ": key " + piece.row.id + ": " + *fault);
        }
    }
    return {};
}

/// At once where nothing stands there yet: one by one, each would be located among all before it.
Result<void> KeySetText::add_policies(const PolicySet& more) {
    const bool fits = more.scopes.size() + branches_.size() <= kScopesMax;
    const auto edit = [&](const LocatedText& set) { return add_sections(set, more); };
    if (!flow_ && fits && policies_ == PolicySet{} && edit_policies("scopes, plans and owners", more, edit)) {
        return {};
    }
    return KeySet::add_policies(more);
}

Result<void> KeySetText::upsert_plan(const PlanRow& plan) {
    const std::string what = "plan " + plan.name;
    if (auto fits = check_terms_with(what, plan); !fits) {
        return fits;
    }
    PolicySet wanted = policies_;
    const auto there = row_named(wanted.plans, plan.name);
    if (there == wanted.plans.end()) {
        wanted.plans.push_back(plan);
        return edit_policies(what, wanted, [&](const LocatedText& set) { return add_plan(set, plan); });
    }
    const PlanRow before = *there;
    *there = plan;
    return edit_policies(what, wanted,
                         [&](const LocatedText& set) { return change_plan(set, before, plan); });
}

Result<void> KeySetText::erase_plan(const std::string& name) {
    const std::string what = "plan " + name;
    std::string users = count_keys([&](const KeyRow& row) { return terms_of(row).plan == name; });
    const auto shares = [&](const OwnerRow& owner) { return owner.plan == name; };
    if (const auto owner = std::find_if(policies_.owners.begin(), policies_.owners.end(), shares);
        owner != policies_.owners.end()) {
        users += (users.empty() ? "" : ", and ") +
                 std::to_string(std::count_if(policies_.owners.begin(), policies_.owners.end(), shares)) +
                 " owners, the first " + yaml_quote(owner->name);
    }
    if (!users.empty()) {
        return used_by(what, users, "give them another plan first");
    }
    PolicySet wanted = policies_;
    wanted.plans.erase(row_named(wanted.plans, name));
    return edit_policies(what, wanted,
                         [&](const LocatedText& set) { return erase_named(set, "plans", name); });
}

Result<void> KeySetText::upsert_owner(const OwnerRow& owner) {
    const std::string what = "owner " + yaml_quote(owner.name);
    if (const auto fault = terms_fault({.plan = owner.plan}, policies_)) {
        return fail(what + ": " + *fault);
    }
    PolicySet wanted = policies_;
    const auto there = row_named(wanted.owners, owner.name);
    if (there == wanted.owners.end()) {
        wanted.owners.push_back(owner);
        return edit_policies(what, wanted, [&](const LocatedText& set) { return add_owner(set, owner); });
    }
    *there = owner;
    return edit_policies(what, wanted, [&](const LocatedText& set) { return change_owner(set, owner); });
}

Result<void> KeySetText::erase_owner(const std::string& name) {
    const std::string what = "owner " + yaml_quote(name);
    const std::string users =
        count_keys([&](const KeyRow& row) { return row.owner == name && row.state != KeyState::kRevoked; });
    if (!users.empty()) {
        return used_by(what, users, "revoke them or give them another owner first");
    }
    PolicySet wanted = policies_;
    wanted.owners.erase(row_named(wanted.owners, name));
    return edit_policies(what, wanted,
                         [&](const LocatedText& set) { return erase_named(set, "owners", name); });
}

Result<void> KeySetText::add_scope(const std::string& scope) {
    PolicySet wanted = policies_;
    wanted.scopes.push_back(scope);
    if (const size_t names = wanted.scopes.size() + branches_.size(); names > kScopesMax) {
        return fail("scope " + scope + ": " + std::to_string(names) +
                    " names and branches in the key set (want at most " + std::to_string(kScopesMax) + ")");
    }
    return edit_policies("scope " + scope, wanted,
                         [&](const LocatedText& set) { return apikeyd::add_scope(set, scope); });
}

Result<void> KeySetText::erase_scope(const std::string& name) {
    const std::string what = "scope " + name;
    PolicySet wanted = policies_;
    std::erase(wanted.scopes, name);
    const std::string users = count_keys([&](const KeyRow& row) {
        const std::vector<std::string>& granted = terms_of(row).scopes;
        return std::any_of(granted.begin(), granted.end(),
                           [&](const std::string& one) { return apikey::shm::scope_covers(one, name); }) &&
               terms_fault({.scopes = granted}, nullptr, wanted.scopes).has_value();
    });
    if (!users.empty()) {
        return used_by(what, users, "grant them others first");
    }
    return edit_policies(what, wanted,
                         [&](const LocatedText& set) { return erase_named(set, "scopes", name); });
}

}  // namespace apikeyd
