// The state machine that makes rows of a key set's events.

#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "source/key_row.h"
#include "source/metadata_json.h"
#include "source/policy_yaml.h"
#include "source/yaml_events.h"
#include "source/yaml_source.h"

namespace apikeyd {

enum class KeyField : uint8_t {
    kId,
    kSha256,
    kState,
    kExpires,
    kPlan,
    kLimits,
    kAddresses,
    kEnvironment,
    kOwner,
    kName,
    kCreated,
    kForeign,
    kScopes,
    kMetadata,
};
inline constexpr size_t kKeyFieldCount = 14;

/// Names by KeyField. The order is the one in which new rows are written: what restricts a key stands before
/// the required `environment`, so a file cut at the end of a line cannot lose a revocation or an expiry and
/// still parse.
inline constexpr std::array<std::string_view, kKeyFieldCount> kKeyFieldNames = {
    "id",          "sha256", "state", "expires", "plan",    "limits", "addresses",
    "environment", "owner",  "name",  "created", "foreign", "scopes", "metadata",
};

class KeySetVisitor final : public YamlVisitor {
  public:
    KeySetVisitor(const YamlLimits& limits, const RowSink& sink, YamlReporter& reporter)
        : limits_(limits), sink_(sink), reporter_(reporter), policy_yaml_(reporter) {}

    void on_scalar(const YamlScalar& scalar) override;
    void on_map_begin(YamlPlace place, bool flow) override;
    void on_map_end() override;
    void on_sequence_begin(YamlPlace place, bool flow) override;
    void on_sequence_end() override;

    [[nodiscard]] uint64_t keys() const { return keys_; }
    /// Once all events came: what stands beside the keys, and what is odd about it.
    [[nodiscard]] PolicySet& policies() { return policies_; }
    [[nodiscard]] std::vector<std::string>& warnings() { return warnings_; }

  private:
    enum class At : uint8_t {
        kRoot,
        kRootName,
        kVersion,
        kKeys,
        kItem,
        kRowName,
        kRowValue,
        kMetadata,
        kTree,  ///< a part that is looked at as a whole
        kSkip,
        kDone
    };
    enum class Root : uint8_t { kVersion, kScopes, kPlans, kOwners, kKeys };
    static constexpr std::array<std::string_view, 5> kRootNames = {"version", "scopes", "plans", "owners",
                                                                   "keys"};

    enum class Row : uint8_t { kKept, kBad };

    struct IdHash {
        size_t operator()(const std::array<char, kKeyIdLength>& id) const;
    };
    struct DigestHash {
        size_t operator()(const std::array<uint8_t, 32>& digest) const;
    };

    void skip(unsigned nodes, At then);
    void skipped_node();
    void root_name(const YamlScalar& scalar);
    void version(const YamlScalar& scalar);
    void row_name(const YamlScalar& scalar);
    void row_value(const YamlScalar& scalar);
    void row_end();
    void row_error(YamlPlace place, std::string_view what);
    void field_error(YamlPlace place, std::string_view what);
    void collection(YamlPlace place, bool map);
    void begin_tree(YamlPlace place, bool map, At then);
    void tree_done();
    void read_field(const YamlNode& node);
    void root_end();
    [[nodiscard]] bool seen(Root root) const { return seen_[static_cast<size_t>(root)]; }
    [[nodiscard]] std::string label() const;

    void set_id(const YamlScalar& scalar, YamlPlace place);
    void set_sha256(const YamlScalar& scalar, YamlPlace place);
    void set_state(const YamlScalar& scalar, YamlPlace place);
    void set_time(const YamlScalar& scalar, YamlPlace place, bool expiry);
    void set_environment(const YamlScalar& scalar, YamlPlace place);
    void set_foreign(const YamlScalar& scalar, YamlPlace place);
    void set_text(const YamlScalar& scalar, YamlPlace place, size_t bytes_max, std::string& out);

    [[nodiscard]] bool has(KeyField field) const {
        return (fields_ >> static_cast<unsigned>(field) & 1u) != 0;
    }

    const YamlLimits& limits_;
    const RowSink& sink_;
    YamlReporter& reporter_;
    uint64_t keys_ = 0;
    At at_ = At::kRoot;
    std::array<bool, kRootNames.size()> seen_{};
    Root root_ = Root::kVersion;
    YamlPlace root_place_;
    PolicyYaml policy_yaml_;
    PolicySet policies_;
    std::vector<std::string> warnings_;
    std::optional<YamlTree> tree_;
    At tree_then_ = At::kRoot;

    // skipping
    At skip_then_ = At::kRoot;
    unsigned skip_nodes_ = 0;
    unsigned skip_depth_ = 0;

    // the row at hand
    KeyRow row_;
    KeyTerms terms_;
    std::shared_ptr<const KeyTerms> last_terms_;
    std::set<std::string, std::less<>> environments_;  // met so far
    Row row_quality_ = Row::kKept;
    YamlPlace row_place_;
    YamlPlace name_place_;  // of the field's name
    KeyField field_ = KeyField::kId;
    unsigned fields_ = 0;  // bit per KeyField
    std::optional<MetadataJson> metadata_;

    boost::unordered_flat_map<std::array<char, kKeyIdLength>, uint32_t, IdHash> id_lines_;
    boost::unordered_flat_map<std::array<uint8_t, 32>, uint32_t, DigestHash> digest_lines_;
};

}  // namespace apikeyd
