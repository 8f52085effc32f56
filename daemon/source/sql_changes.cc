#include "source/sql_changes.h"

#include <algorithm>
#include <set>
#include <utility>

#include "shm/scope_name.h"
#include "source/json_text.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading what changed";
/// More keys than these that a change beside them may concern, and all are read anew.
constexpr size_t kConcernedMax = 100'000;

using Before = ChangeLog::Before;

class ChangeRun {
  public:
    ChangeRun(SqlKeyStore& store, const ChangeLog& log)
        : store_(store), log_(log), warnings_(store.connection->named()) {}

    Result<std::optional<SourceChanges>> run(const Fingerprint& now) {
        const Result<bool> judged = judge_policies();
        if (!judged) {
            return tl::unexpected(judged.error());
        }
        if (!*judged) {
            return std::nullopt;
        }
        SourceChanges changes{.fingerprint = now};
        if (const Result<void> read = read_keys(changes); !read) {
            return tl::unexpected(read.error());
        }
        const Result<bool> fit = branches_fit(changes.rows);
        if (!fit) {
            return tl::unexpected(fit.error());
        }
        if (!*fit) {
            return std::nullopt;  // which rows are left out then depends on all of them
        }
        if (!log_.plans.empty() || !log_.owners.empty() || !log_.scopes.empty()) {
            changes.policies =
                store_.policies.load([&](const auto& table, const auto& row, const auto& what) {
                    warnings_.add(table, row, what);
                });
        }
        if (const Result<void> read = store_.policies_read(); !read) {
            return tl::unexpected(read.error());
        }
        changes.warnings = warnings_.take();
        return changes;
    }

  private:
    /// Finds the keys that a change beside them may have made good or bad. False when they are too many.
    Result<bool> judge_policies() {
        Result<bool> few = judge_plans();
        if (few && *few) {
            few = judge_owners();
        }
        if (few && *few && !log_.scopes.empty()) {
            few = judge_scopes();
        }
        return few;
    }

    bool plan_was_sound(const std::string& name) {
        const auto logged = log_.plans.find(name);
        if (logged == log_.plans.end()) {
            return store_.policies.plan(name) != nullptr;
        }
        const Before& before = logged->second;
        return before.was &&
               plan_of(name, before.old ? KeyColumns::Text(*before.old) : std::nullopt).has_value();
    }

    Result<bool> judge_plans() {
        for (const auto& [name, before] : log_.plans) {
            const bool other = plan_was_sound(name) != (store_.policies.plan(name) != nullptr);
            // Of a plan that was there and is, only keys with limits in place of its own can turn.
            const Result<bool> few =
                concern(other ? "SELECT id FROM keys WHERE plan = ?1 LIMIT ?2"
                              : "SELECT id FROM keys WHERE plan = ?1 AND limits IS NOT NULL LIMIT ?2",
                        name, concerned_);
            if (!few || !*few) {
                return few;
            }
            if (other) {
                const Result<bool> few_owners =
                    concern("SELECT name FROM owners WHERE plan = ?1 LIMIT ?2", name, turned_owners_);
                if (!few_owners || !*few_owners) {
                    return few_owners;
                }
            }
        }
        return true;
    }

    Result<bool> judge_owners() {
        for (const auto& [name, before] : log_.owners) {
            const bool was_sound = !before.was || !before.old || plan_was_sound(*before.old);
            if (was_sound != store_.policies.owner_is_sound(name)) {
                turned_owners_.insert(name);
            }
        }
        for (const std::string& name : turned_owners_) {
            const Result<bool> few =
                concern("SELECT id FROM keys WHERE owner = ?1 AND owner <> '' LIMIT ?2", name, concerned_);
            if (!few || !*few) {
                return few;
            }
        }
        return true;
    }

    Result<bool> judge_scopes() {
        const std::vector<std::string>& now = store_.policies.scopes();
        std::vector<std::string> then;
        for (const std::string& name : now) {
            if (!log_.scopes.contains(name)) {
                then.push_back(name);
            }
        }
        for (const auto& [name, before] : log_.scopes) {
            if (before.was && !scope_fault(name) && !apikey::shm::is_branch(name)) {
                then.push_back(name);
            }
        }
        std::set<std::string> turned;
        const Result<void> seen = store_.each_scopes([&](std::string_view scopes) {
            if (const auto granted = granted_of(scopes)) {
                const KeyTerms terms{.scopes = *granted};
                if (terms_fault(terms, nullptr, then).has_value() !=
                    terms_fault(terms, nullptr, now).has_value()) {
                    turned.emplace(scopes);
                }
            }
        });
        if (!seen) {
            return tl::unexpected(seen.error());
        }
        for (const std::string& scopes : turned) {
            const Result<bool> few = concern("SELECT id FROM keys WHERE " + store_.scopes_indexed("scopes") +
                                                 " = " + store_.scopes_indexed("?1") + " LIMIT ?2",
                                             scopes, concerned_);
            if (!few || !*few) {
                return few;
            }
        }
        return true;
    }

    Result<bool> concern(const std::string& sql, std::string_view name, std::set<std::string>& into) {
        const Result<SqlStatementPtr> prepared = store_.connection->prepare(sql);
        if (!prepared) {
            return tl::unexpected(prepared.error());
        }
        SqlStatement& ids = **prepared;
        SqlStep step = ids.bind(1, name).bind(2, int64_t{kConcernedMax} + 1).step();
        for (; step == SqlStep::kRow; step = ids.step()) {
            into.emplace(ids.column_text(0));
        }
        if (step == SqlStep::kFailed) {
            return store_.failed(kDoing);
        }
        return into.size() <= kConcernedMax;
    }

    /// Whether names and granted branches are no more than a set may have, where a change may have made them
    /// more.
    Result<bool> branches_fit(const std::vector<KeyRow>& rows) {
        const auto grants = [](const KeyRow& row) {
            const std::vector<std::string>& granted = terms_of(row).scopes;
            return std::any_of(granted.begin(), granted.end(), apikey::shm::is_branch);
        };
        if (log_.scopes.empty() && std::none_of(rows.begin(), rows.end(), grants)) {
            return true;
        }
        std::set<std::string> branches;
        const Result<void> seen = store_.each_scopes([&](std::string_view scopes) {
            for (std::string& scope : granted_of(scopes).value_or(std::vector<std::string>())) {
                if (apikey::shm::is_branch(scope)) {
                    branches.insert(std::move(scope));
                }
            }
        });
        if (!seen) {
            return tl::unexpected(seen.error());
        }
        return store_.policies.scopes().size() + branches.size() <= kScopesMax;
    }

    /// All that the log names or a change beside them concerns, as they are now.
    Result<void> read_keys(SourceChanges& changes) {
        std::vector<std::string> ids;
        for (const auto& [id, before] : log_.keys) {
            ids.push_back(id);
        }
        std::copy_if(concerned_.begin(), concerned_.end(), std::back_inserter(ids),
                     [&](const std::string& id) { return !log_.keys.contains(id); });
        std::sort(ids.begin(), ids.end());
        std::set<std::string, std::less<>> found;
        const Result<void> read = store_.look_up(ids, [&](const KeyColumns& columns) {
            found.emplace(columns.id.value_or(""));
            read_key(columns, changes);
        });
        for (const auto& [id, before] : log_.keys) {
            if (!found.contains(id)) {
                note_gone(id, before.had, nullptr, changes);
            }
        }
        return read;
    }

    void read_key(const KeyColumns& columns, SourceChanges& changes) {
        const std::string id(columns.id.value_or(""));
        std::set<std::pair<std::string, bool>> had;  // whoever reads may have of the key what the row has
        if (columns.sha256) {
            had.emplace(*columns.sha256, columns.foreign == 1);
        }
        if (const auto logged = log_.keys.find(id); logged != log_.keys.end()) {
            had.insert(logged->second.had.begin(), logged->second.had.end());
        }
        auto row = store_.reader.read(columns);
        if (!row) {
            warnings_.add("keys", row_name(columns), row.error());
        }
        note_gone(id, had, row ? &*row : nullptr, changes);
        if (row) {
            changes.rows.push_back(*std::move(row));
        }
    }

    static void note_gone(const std::string& id, const std::set<std::pair<std::string, bool>>& had,
                          const KeyRow* row, SourceChanges& changes) {
        for (const auto& [digest, foreign] : had) {
            KeyRow gone;
            gone.id = id;
            gone.foreign = foreign;
            if (digest.size() != gone.digest.size()) {
                continue;
            }
            std::copy(digest.begin(), digest.end(), gone.digest.begin());
            if (row == nullptr || row->digest != gone.digest || row->foreign != gone.foreign) {
                changes.gone.push_back(std::move(gone));
            }
        }
    }

    SqlKeyStore& store_;
    const ChangeLog& log_;
    RowWarnings warnings_;
    std::set<std::string> concerned_;      // ids
    std::set<std::string> turned_owners_;  // whose plan came to be, or ceased
};

}  // namespace

void ChangeLog::note(const SqlStatement& row, int first) {
    const std::string_view kind = row.column_text(first);
    Things& things = kind == "key" ? keys : kind == "plan" ? plans : kind == "owner" ? owners : scopes;
    const auto [thing, is_first] = things.try_emplace(std::string(row.column_text(first + 1)));
    Before& before = thing->second;
    if (is_first) {
        before.was = row.column_int(first + 2) == 0;
        if (!row.column_is_null(first + 5)) {
            before.old = std::string(row.column_text(first + 5));
        }
    }
    if (const std::span<const uint8_t> digest = row.column_blob(first + 3); !digest.empty()) {
        before.had.emplace(std::string(digest.begin(), digest.end()), row.column_int(first + 4) == 1);
    }
}

Result<std::optional<SourceChanges>> read_changes(SqlKeyStore& store, const ChangeLog& log,
                                                  const Fingerprint& now) {
    return ChangeRun(store, log).run(now);
}

}  // namespace apikeyd
