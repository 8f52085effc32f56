#include "source/sql_load.h"

#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "shm/scope_name.h"
#include "source/key_rules.h"
#include "source/key_set_limits.h"
#include "source/yaml_events.h"

namespace apikeyd {

namespace {

/// What only all rows together show: the first so many environments and branches are taken.
class WholeSet {
  public:
    explicit WholeSet(size_t scopes) : scopes_(scopes) {}

    /// What keeps the row from the set.
    std::optional<std::string> fault(const KeyRow& row) {
        if (!row.environment.empty() && !environments_.contains(row.environment)) {
            if (environments_.size() == kEnvironmentsMax) {
                overfull_ = true;
                return "environment: " + environments_fault(row.environment);
            }
            environments_.insert(row.environment);
        }
        if (row.terms == nullptr || row.terms == seen_) {
            return std::nullopt;
        }
        for (const std::string& scope : row.terms->scopes) {
            if (!apikey::shm::is_branch(scope) || branches_.contains(scope)) {
                continue;
            }
            if (scopes_ + branches_.size() == kScopesMax) {
                overfull_ = true;
                return "scopes: " + yaml_quote(scope) + " is one too many (want at most " +
                       std::to_string(kScopesMax) + " names and branches)";
            }
            branches_.insert(scope);
        }
        seen_ = row.terms;
        return std::nullopt;
    }
    [[nodiscard]] bool overfull() const { return overfull_; }

  private:
    size_t scopes_;
    std::set<std::string, std::less<>> environments_, branches_;
    std::shared_ptr<const KeyTerms> seen_;
    bool overfull_ = false;
};

}  // namespace

ScannedRow scan_row(SqlKeyStore& store, const KeyColumns& columns) {
    ScannedRow scanned{store.reader.read(columns)};
    if (!scanned.row) {
        scanned.name = row_name(columns);
    }
    return scanned;
}

Result<LoadedSet> load_key_set(SqlKeyStore& store, const Fingerprint& fingerprint, const ScanKeys& scan,
                               const RowSink& sink) {
    RowWarnings warnings(store.connection->named());
    SourceContent content{.fingerprint = fingerprint};
    content.policies = store.policies.load(
        [&](const auto& table, const auto& row, const auto& what) { warnings.add(table, row, what); });
    store.reader.forget();
    WholeSet whole(content.policies.scopes.size());
    uint64_t read = 0;
    const Result<void> scanned = scan([&](ScannedRow& scanned_row) {
        tl::expected<KeyRow, std::string>& row = scanned_row.row;
        if (++read > kKeySetRowsMax) {
            return;
        }
        if (row) {
            if (auto fault = whole.fault(*row)) {
                scanned_row.name = "id " + row->id;
                row = tl::unexpected(*std::move(fault));
            }
        }
        if (!row) {
            warnings.add("keys", scanned_row.name, row.error());
            return;
        }
        ++content.keys;
        sink(*row);
    });
    if (!scanned) {
        return tl::unexpected(scanned.error());
    }
    if (read > kKeySetRowsMax) {
        return fail(store.connection->named() + ": " + std::to_string(read) + " keys (the limit is " +
                    std::to_string(kKeySetRowsMax) + ")");
    }
    if (const Result<void> policies = store.policies_read(); !policies) {
        return tl::unexpected(policies.error());
    }
    content.left_out = warnings.count();
    content.warnings = warnings.take();
    return LoadedSet{std::move(content), whole.overfull()};
}

}  // namespace apikeyd
