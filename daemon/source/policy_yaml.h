// Scopes, plans, owners and a key's terms in a YAML key set:
//
//     scopes: [reports.read, reports.write]     # what servers ask for
//     plans:
//       - name: free
//         limits:                               # at most 6
//           - {name: burst, rate: 100/s, burst: 200}
//           - {name: monthly, quota: 1000000/month, shadow: true}
//     owners:
//       - {name: acme, plan: team}              # limits that all keys of acme share
//     keys:
//       - id: …
//         scopes: [reports.*]
//         plan: free
//         addresses: [192.0.2.0/24, 2001:db8::/32]
//         limits: [{name: burst, rate: 50/s}]   # in place of the plan's of that name

#pragma once

#include <map>
#include <string>

#include "source/policy_rows.h"
#include "source/yaml_tree.h"

namespace apikeyd {

/// Reads what the nodes say, and reports what is wrong with them, `label` in front.
class PolicyYaml {
  public:
    explicit PolicyYaml(YamlReporter& reporter) : reporter_(reporter) {}

    void read_scopes(const YamlNode& node, PolicySet& set);
    void read_plans(const YamlNode& node, PolicySet& set);
    void read_owners(const YamlNode& node, PolicySet& set);

    // Of a key. False: something was reported.
    bool read_granted(const YamlNode& node, const std::string& label, KeyTerms& terms);
    bool read_addresses(const YamlNode& node, const std::string& label, KeyTerms& terms);
    bool read_overrides(const YamlNode& node, const std::string& label, KeyTerms& terms);
    bool read_plan_name(const std::string& name, YamlPlace place, const std::string& label, KeyTerms& terms);
    /// Notes what the finished terms of a key refer to.
    void note_terms(const KeyTerms& terms, YamlPlace place, const std::string& label);

    /// Once all of the set was read: every plan that is named is there, every scope that is granted was
    /// defined, and there are not too many. Answers the scopes that no key was granted, which is no error.
    std::vector<std::string> check_references(const PolicySet& set);

  private:
    struct Fields;
    bool read_limits(const YamlNode& list, const std::string& label, std::vector<LimitRow>& limits);
    bool read_limit(const YamlNode& map, const std::string& label, LimitRow& limit);
    bool is_list(const YamlNode& node, const std::string& label, const char* of);
    bool error(YamlPlace place, const std::string& label, std::string_view what);

    YamlReporter& reporter_;
    /// The first use of each plan, scope and override.
    struct Use {
        KeyTerms terms;
        YamlPlace place;
        std::string label;  ///< begins the error
    };
    std::map<std::string, Use, std::less<>> uses_;
    std::map<std::string, YamlPlace, std::less<>> defined_scopes_;
};

}  // namespace apikeyd
