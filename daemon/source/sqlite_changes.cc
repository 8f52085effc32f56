#include "source/sqlite_changes.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "shm/scope_name.h"
#include "source/json_text.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading what changed";
/// More keys than these that a change beside them may concern, and all are read anew.
constexpr size_t kConcernedMax = 100'000;

/// What the log says of a thing.
struct Before {
    bool was = false;  ///< at `since`, as its first row has it
    std::optional<std::string> old = std::nullopt;
    /// The digests that a key has had since, and with each whether it was foreign. Not the first alone: who
    /// reads may have been told of a later one.
    std::set<std::pair<std::string, bool>> had = {};
};
using Things = std::map<std::string, Before, std::less<>>;

class ChangeRun {
  public:
    ChangeRun(KeyStoreConnection& connection, const Position& since, const Position& now)
        : connection_(connection), since_(since), now_(now), warnings_(connection.database.named()) {}

    Result<std::optional<SourceChanges>> run() {
        const Result<bool> logged = read_log();
        const Result<bool> judged = logged && *logged ? judge_policies() : logged;
        if (!judged) {
            return tl::unexpected(judged.error());
        }
        if (!*judged) {
            return std::nullopt;
        }
        SourceChanges changes{.fingerprint = fingerprint_of(now_)};
        for (const auto& [id, before] : keys_) {
            if (const Result<void> read = read_key(id, &before, changes); !read) {
                return tl::unexpected(read.error());
            }
        }
        for (const std::string& id : concerned_) {
            if (!keys_.contains(id)) {
                if (const Result<void> read = read_key(id, nullptr, changes); !read) {
                    return tl::unexpected(read.error());
                }
            }
        }
        const Result<bool> fit = branches_fit(changes.rows);
        if (!fit) {
            return tl::unexpected(fit.error());
        }
        if (!*fit) {
            return std::nullopt;  // which rows are left out then depends on all of them
        }
        if (!plans_.empty() || !owners_.empty() || !scopes_.empty()) {
            changes.policies =
                connection_.policies.load([&](const auto& table, const auto& row, const auto& what) {
                    warnings_.add(table, row, what);
                });
        }
        if (const Result<void> read = connection_.policies_read(); !read) {
            return tl::unexpected(read.error());
        }
        changes.warnings = warnings_.take();
        return changes;
    }

  private:
    /// False when the log does not reach back to `since`, or tells another history.
    Result<bool> read_log() {
        Statement rows;
        if (Result<void> prepared = connection_.database.prepare(
                {{&rows,
                  "SELECT seq, mark, kind, name, came, sha256, \"foreign\", old FROM changes WHERE seq >= ?1 "
                  "ORDER BY seq"}});
            !prepared) {
            return tl::unexpected(prepared.error());
        }
        uint64_t expected = std::max<uint64_t>(since_.seq, 1);
        int rc = rows.bind(1, static_cast<int64_t>(expected)).step();
        for (; rc == SQLITE_ROW; rc = rows.step(), ++expected) {
            const auto seq = static_cast<uint64_t>(rows.column_int(0));
            if (seq != expected ||
                (seq == since_.seq && static_cast<uint64_t>(rows.column_int(1)) != since_.mark)) {
                return false;
            }
            if (seq > since_.seq) {
                note(rows);
            }
        }
        if (rc != SQLITE_DONE) {
            return connection_.failed(kDoing);
        }
        return expected == now_.seq + 1;
    }

    void note(const Statement& row) {
        const std::string_view kind = row.column_text(2);
        Things& things = kind == "key"     ? keys_
                         : kind == "plan"  ? plans_
                         : kind == "owner" ? owners_
                                           : scopes_;
        const auto [thing, is_first] = things.try_emplace(std::string(row.column_text(3)));
        Before& before = thing->second;
        if (is_first) {
            before.was = row.column_int(4) == 0;
            if (row.column_is_text(7)) {
                before.old = std::string(row.column_text(7));
            }
        }
        if (const std::string_view digest = row.column_text(5); !digest.empty()) {
            before.had.emplace(digest, row.column_int(6) == 1);
        }
    }

    /// Finds the keys that a change beside them may have made good or bad. False when they are too many.
    Result<bool> judge_policies() {
        Result<bool> few = judge_plans();
        if (few && *few) {
            few = judge_owners();
        }
        if (few && *few && !scopes_.empty()) {
            few = judge_scopes();
        }
        return few;
    }

    bool plan_was_sound(const std::string& name) {
        const auto logged = plans_.find(name);
        if (logged == plans_.end()) {
            return connection_.policies.plan(name) != nullptr;
        }
        const Before& before = logged->second;
        return before.was &&
               plan_of(name, before.old ? KeyColumns::Text(*before.old) : std::nullopt).has_value();
    }

    Result<bool> judge_plans() {
        for (const auto& [name, before] : plans_) {
            const bool other = plan_was_sound(name) != (connection_.policies.plan(name) != nullptr);
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
        for (const auto& [name, before] : owners_) {
            const bool was_sound = !before.was || !before.old || plan_was_sound(*before.old);
            if (was_sound != connection_.policies.owner_is_sound(name)) {
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
        const std::vector<std::string>& now = connection_.policies.scopes();
        std::vector<std::string> then;
        for (const std::string& name : now) {
            if (!scopes_.contains(name)) {
                then.push_back(name);
            }
        }
        for (const auto& [name, before] : scopes_) {
            if (before.was && !scope_fault(name) && !apikey::shm::is_branch(name)) {
                then.push_back(name);
            }
        }
        std::set<std::string> turned;
        const Result<void> seen = connection_.each_scopes([&](std::string_view scopes) {
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
            const Result<bool> few =
                concern("SELECT id FROM keys WHERE scopes = ?1 LIMIT ?2", scopes, concerned_);
            if (!few || !*few) {
                return few;
            }
        }
        return true;
    }

    Result<bool> concern(std::string_view sql, std::string_view name, std::set<std::string>& into) {
        Result<Statement> ids = connection_.database.prepare(sql);
        if (!ids) {
            return tl::unexpected(ids.error());
        }
        int rc = ids->bind(1, name).bind(2, int64_t{kConcernedMax} + 1).step();
        for (; rc == SQLITE_ROW; rc = ids->step()) {
            into.emplace(ids->column_text(0));
        }
        if (rc != SQLITE_DONE) {
            return connection_.failed(kDoing);
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
        if (scopes_.empty() && std::none_of(rows.begin(), rows.end(), grants)) {
            return true;
        }
        std::set<std::string> branches;
        const Result<void> seen = connection_.each_scopes([&](std::string_view scopes) {
            for (std::string& scope : granted_of(scopes).value_or(std::vector<std::string>())) {
                if (apikey::shm::is_branch(scope)) {
                    branches.insert(std::move(scope));
                }
            }
        });
        if (!seen) {
            return tl::unexpected(seen.error());
        }
        return connection_.policies.scopes().size() + branches.size() <= kScopesMax;
    }

    /// The key as it is now; `before`: as the log says it was, nullptr where it says nothing.
    Result<void> read_key(const std::string& id, const Before* before, SourceChanges& changes) {
        std::optional<KeyRow> row;
        std::set<std::pair<std::string, bool>> had;  // whoever reads may have of the key what the row has
        const Result<bool> found = connection_.look_up(id, [&](const KeyColumns& columns) {
            if (auto read = connection_.reader.read(columns)) {
                row = *std::move(read);
            } else {
                warnings_.add("keys", row_name(columns), read.error());
            }
            if (columns.sha256) {
                had.emplace(*columns.sha256, columns.foreign == 1);
            }
        });
        if (!found) {
            return tl::unexpected(found.error());
        }
        if (before != nullptr) {
            had.insert(before->had.begin(), before->had.end());
        }
        for (const auto& [digest, foreign] : had) {
            KeyRow gone;
            gone.id = id;
            gone.foreign = foreign;
            if (digest.size() != gone.digest.size()) {
                continue;
            }
            std::copy(digest.begin(), digest.end(), gone.digest.begin());
            if (!row || row->digest != gone.digest || row->foreign != gone.foreign) {
                changes.gone.push_back(std::move(gone));
            }
        }
        if (row) {
            changes.rows.push_back(*std::move(row));
        }
        return {};
    }

    KeyStoreConnection& connection_;
    const Position& since_;
    const Position& now_;
    RowWarnings warnings_;
    Things keys_, plans_, owners_, scopes_;
    std::set<std::string> concerned_;      // ids
    std::set<std::string> turned_owners_;  // whose plan came to be, or ceased
};

}  // namespace

Result<std::optional<SourceChanges>> changes_between(KeyStoreConnection& connection, const Position& since,
                                                     const Position& now) {
    if (since == now) {
        return SourceChanges{.fingerprint = fingerprint_of(now)};
    }
    if (since.uid != now.uid || since.seq >= now.seq) {
        return std::nullopt;
    }
    return ChangeRun(connection, since, now).run();
}

}  // namespace apikeyd
