// Scopes, plans and owners as YAML text, changed in place.
//
// Each function takes a key set's text, located with its sections (yaml_locate.h), and answers with another
// text, or nullopt for a form that cannot be edited. The caller parses the result.

#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "source/policy_rows.h"
#include "source/yaml_locate.h"

namespace apikeyd {

/// A text and where things stand in it.
struct LocatedText {
    std::string_view text;
    const KeySetSpans& spans;
    std::string_view newline;
};

/// Adds what is not there. A part that is missing is made, behind its predecessor in the order scopes, plans,
/// owners.
std::optional<std::string> add_scope(const LocatedText& set, const std::string& scope);
std::optional<std::string> add_plan(const LocatedText& set, const PlanRow& plan);
std::optional<std::string> add_owner(const LocatedText& set, const OwnerRow& owner);

/// All of it, where there is none of the three parts.
std::optional<std::string> add_sections(const LocatedText& set, const PolicySet& policies);

/// Changes what is there. Limits that are the same stay as they are written.
std::optional<std::string> change_plan(const LocatedText& set, const PlanRow& before, const PlanRow& plan);
std::optional<std::string> change_owner(const LocatedText& set, const OwnerRow& owner);

/// Takes away one of `root`: scopes, plans or owners. Comments above it stay.
std::optional<std::string> erase_named(const LocatedText& set, std::string_view root, std::string_view name);

}  // namespace apikeyd
