#include "tools/key_change.h"

#include <unistd.h>

#include <optional>
#include <string_view>

#include "tools/fleet_wait.h"

namespace apikeyd {

namespace {

/// Why this daemon must not be told of changes to `store`; empty when it may: it would put them into a table
/// that is made of another set.
std::string other_source(const DaemonStatus& status, const StoreName& store) {
    // Weakly: the first key may be what makes the file.
    const Result<StoreName> served = store_named(status.source);
    if (served && served->kind == store.kind && same_place(*served, store)) {
        return {};
    }
    return "the daemon of instance " + status.instance + " (" + status.directory + ") serves " +
           status.source;
}

/// Whether there is a daemon that may be told.
Outcome check_daemon(const Context& context, const StoreName& store) {
    const auto status = context.ask_status();
    if (!status) {
        return tl::unexpected(status.error());
    }
    if (std::string other = other_source(*status, store); !other.empty()) {
        return failed(Exit::kUnreachable, std::move(other));
    }
    return {};
}

/// Why a missing store must not be made anew: it is most likely away for a moment, and all its keys with it.
Outcome check_not_served(const Context& context, const StoreName& store) {
    const auto status = context.ask_status();
    if (status && status->keys != 0 && other_source(*status, store).empty()) {
        return failed(Exit::kUnreachable,
                      store.shown() + ": is not there, and the daemon serves " +
                          std::to_string(status->keys) + " keys from it; bring it back, or begin anew with " +
                          (store.kind == StoreKind::kYaml ? "one that says 'keys: []'" : "an empty file"));
    }
    return {};
}

Outcome tell(const Context& context, const AdminRequest& request, int64_t wait_ms) {
    const auto answer = context.ask(request, wait_ms);
    if (!answer) {
        return tl::unexpected(answer.error());
    }
    if (const Result<void> done = parse_done(*answer); !done) {
        return failed(Exit::kUnreachable, context.socket_path() + ": " + done.error().message);
    }
    return {};
}

Outcome bring_in_force(const Context& context, const ApplyRequest& request) {
    return request.changes.size() > kToldMax ? tell(context, ReloadRequest{}, kReloadWait_ms)
                                             : tell(context, request, kApplyWait_ms);
}

/// Edits the set, and tells what the daemon is to be told; its hashes are filled in here.
using SetEdit = std::function<tl::expected<ApplyRequest, Failure>(KeySet& set)>;

/// A database server's is made by its schema, not by a change.
bool is_missing(const StoreName& store) {
    return store.is_file() && access(store.place.c_str(), F_OK) != 0;
}

void say_made(const StoreName& store) {
    say(store.place + ": made, with mode 0600; the daemon's user must be able to read it" +
        (store.kind == StoreKind::kSqlite ? ", and -wal and -shm beside it" : ""));
}

Outcome recorded_only(const StoreName& store, const Failure& why) {
    return failed(Exit::kUnreachable, Cause::kRecorded,
                  store.shown() + ": recorded, not in force: " + why.message);
}

Outcome change_set(const Context& context, const SetEdit& edit, bool create) {
    if (Outcome usable = context.check_config(); !usable) {
        return usable;
    }
    const auto store = context.store();
    if (!store) {
        return tl::unexpected(store.error());
    }
    std::optional<Failure> refusal;
    ApplyRequest request;
    Outcome in_force = failed(Exit::kUnreachable, "not told");
    ChangeOptions options;
    options.lock_wait_ms_max = context.wait_ms_max();
    options.create = create;
    const bool missing = is_missing(*store);
    if (create && missing) {
        if (Outcome away = check_not_served(context, *store); !away) {
            return away;
        }
    }
    // Told under the lock: were it later, another operator's change of the same key could overtake this one,
    // and the older of the two would be what the daemon heard last. Whom to tell is settled before, since the
    // daemon sees the change too, and reads the store if it is told of the change only after that.
    const Outcome daemon = check_daemon(context, *store);
    options.then_locked = [&](const Rewrite& rewrite) {
        request.before = rewrite.before;
        request.after = rewrite.after;
        in_force = daemon ? bring_in_force(context, request) : daemon;
    };
    const Result<Rewrite> rewritten = make_store(*store)->change(
        [&](KeySet& set) -> Result<void> {
            const Outcome checked = context.check(set);
            auto changed = checked ? edit(set) : tl::unexpected(checked.error());
            if (!changed) {
                refusal = changed.error();
                return fail(refusal->message);
            }
            request = *std::move(changed);
            request.on_behalf_of = context.whom();
            return {};
        },
        options);
    if (!rewritten) {
        return refusal ? tl::unexpected(*refusal) : failed(Exit::kUnreachable, rewritten.error());
    }
    if (missing && rewritten->written) {
        say_made(*store);
    }
    return in_force ? in_force : recorded_only(*store, in_force.error());
}

}  // namespace

Outcome change_keys(const Context& context, const KeyEdit& edit, bool create, Until until) {
    if (until == Until::kFleet) {
        if (Outcome fleet = check_fleet(context); !fleet) {
            return fleet;
        }
    }
    const auto edit_set = [&](KeySet& set) -> tl::expected<ApplyRequest, Failure> {
        auto changes = edit(set);
        if (!changes) {
            return tl::unexpected(changes.error());
        }
        ApplyRequest request;
        request.changes = *std::move(changes);
        return request;
    };
    Outcome changed = change_set(context, edit_set, create);
    // Where it was recorded, other hosts may have it though this one does not.
    if (changed && until == Until::kFleet) {
        changed = wait_for_fleet(context);
        if (!changed) {
            changed.error().cause = Cause::kRecorded;
        }
    }
    return changed;
}

Outcome change_policies(const Context& context, const PolicyEdit& edit, bool create) {
    const auto edit_set = [&](KeySet& set) -> tl::expected<ApplyRequest, Failure> {
        auto change = edit(set);
        if (!change) {
            return tl::unexpected(change.error());
        }
        ApplyRequest request;
        request.policies.push_back(*std::move(change));
        return request;
    };
    return change_set(context, edit_set, create);
}

Outcome change_store(const Context& context, const StoreName& store, const StoreEdit& edit) {
    const bool missing = is_missing(store);
    if (missing) {
        if (Outcome away = check_not_served(context, store); !away) {
            return away;
        }
    }
    std::optional<Failure> refusal;
    ChangeOptions options;
    options.lock_wait_ms_max = context.wait_ms_max();
    options.create = true;
    const Result<Rewrite> rewritten = make_store(store)->change(
        [&](KeySet& set) -> Result<void> {
            if (Outcome edited = edit(set); !edited) {
                refusal = edited.error();
                return fail(refusal->message);
            }
            return {};
        },
        options);
    if (!rewritten) {
        return refusal ? tl::unexpected(*refusal) : failed(Exit::kUnreachable, rewritten.error());
    }
    if (missing && rewritten->written) {
        say_made(store);
    }
    if (!check_daemon(context, store)) {
        return {};
    }
    const Outcome in_force = tell(context, ReloadRequest{}, kReloadWait_ms);
    return in_force ? in_force : recorded_only(store, in_force.error());
}

Outcome reload_store(const Context& context, const StoreName& store, bool force) {
    Outcome in_force = check_daemon(context, store);
    if (in_force) {
        in_force = tell(context, ReloadRequest{force}, kReloadWait_ms);
    }
    return in_force ? in_force : recorded_only(store, in_force.error());
}

tl::expected<KeyRow, Failure> find_key(const Context& context, KeySet& set, const std::string& id) {
    auto found = set.key(id);
    if (!found) {
        return failed(Exit::kUnreachable, found.error());
    }
    if (*found) {
        return **std::move(found);
    }
    Failure missing{Exit::kNo, id + ": no key with this id in " + context.store()->shown(), Daemon::kDown,
                    Cause::kMissing};
    if (const auto status = context.ask_status(); status && !status->load_error.empty()) {
        missing.message +=
            "\nThe daemon refused this key set, so a key that was in the one before may still be "
            "accepted: put the key back into the file and revoke it, or have the file taken as it "
            "is by `apikeyctl reload --force`. It was refused because:\n" +
            status->load_error;
    }
    return tl::unexpected(std::move(missing));
}

}  // namespace apikeyd
