// backup, restore: a store as a file, and back.

#include <memory>

#include "source/store_backup.h"
#include "tools/faults.h"
#include "tools/key_change.h"
#include "tools/progress.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

struct BackupVerbOptions {
    std::string file;
    bool replace = false;
};

struct RestoreVerbOptions {
    std::string file;
    bool keep_revoked = false;
    bool accept_revoked = false;
};

/// The line is gone when the work is done.
template <typename Work>
auto with_progress(const Work& work) {
    Progress progress("pages");
    return work([&](uint64_t done, uint64_t total) { progress.at(done, total); });
}

Outcome back_up_store(const Context& context, const BackupVerbOptions& given) {
    const auto store = context.store();
    if (!store) {
        return tl::unexpected(store.error());
    }
    BackupOptions options;
    options.replace = given.replace;
    const Result<uint64_t> keys = with_progress([&](const BackupProgress& progress) {
        options.progress = progress;
        return back_up(*store, given.file, options);
    });
    if (!keys) {
        return failed(Exit::kUnreachable, keys.error());
    }
    say(given.file + ": " + std::to_string(*keys) + " keys of " + store->text());
    return {};
}

/// What to do about revoked keys that the backup has not revoked.
Outcome refuse(const StoreName& store, const RestoreEffect& effect) {
    if (effect.no_store) {
        return failed(Exit::kNo,
                      store.place +
                          ": is not there to say which keys were revoked since the backup was made; "
                          "nothing was restored (look for them in the audit log, restore with "
                          "--accept-revoked, and revoke them again)");
    }
    Faults faults;
    for (const std::string& id : effect.revived) {
        faults.add("key " + id + ": is revoked, and the backup has it not revoked");
    }
    return failed(Exit::kNo,
                  faults.text("nothing was restored (--keep-revoked has them revoked in what is put back, "
                              "--accept-revoked has them accepted again)"));
}

Outcome restore_store(const Context& context, const RestoreVerbOptions& given) {
    if (given.keep_revoked && given.accept_revoked) {
        return failed(Exit::kUsage, "--keep-revoked and --accept-revoked: want one of the two");
    }
    if (Outcome usable = context.check_config(); !usable) {
        return usable;
    }
    const auto store = context.store();
    if (!store) {
        return tl::unexpected(store.error());
    }
    RestoreOptions options;
    options.revived = given.keep_revoked     ? Revived::kRevokedAgain
                      : given.accept_revoked ? Revived::kAccepted
                                             : Revived::kRefused;
    options.lock_wait_ms_max = kLockWait_ms;
    const Result<RestoreEffect> effect = with_progress([&](const BackupProgress& progress) {
        options.progress = progress;
        return restore(*store, given.file, options);
    });
    if (!effect) {
        return failed(Exit::kUnreachable, effect.error());
    }
    const bool settled = given.accept_revoked || (given.keep_revoked && !effect->no_store);
    if ((effect->no_store || !effect->revived.empty()) && !settled) {
        return refuse(*store, *effect);
    }
    say(store->place + ": " + std::to_string(effect->keys) + " keys of " + given.file + "; " +
        std::to_string(effect->come) + " are back that it did not have, " + std::to_string(effect->go) +
        " are gone that only it had, " + std::to_string(effect->revived.size()) +
        (given.accept_revoked ? " were revoked and are not" : " stay revoked that were not then"));
    return reload_store(context, *store, false);
}

}  // namespace

Verb add_backup(CommandLine& line) {
    auto options = std::make_shared<BackupVerbOptions>();
    Command command = line.add_verb("backup", "copy the store into a file of its kind");
    command.add_required("FILE", options->file, "the file to make, with mode 0600");
    command.add_flag("--replace", options->replace, "also one that is there already");
    command.set_example("apikeyctl backup /var/backups/keys-2026-11-27.db");
    return {command, [options](const Context& context) { return back_up_store(context, *options); }};
}

Verb add_restore(CommandLine& line) {
    auto options = std::make_shared<RestoreVerbOptions>();
    Command command = line.add_verb("restore", "put a backup in the place of all that the store holds");
    command.add_required("FILE", options->file, "what `backup` made");
    command.add_flag("--keep-revoked", options->keep_revoked,
                     "revoke in what is put back the keys that are revoked now");
    command.add_flag("--accept-revoked", options->accept_revoked, "accept them again");
    command.set_example("apikeyctl restore /var/backups/keys-2026-11-27.db --keep-revoked");
    return {command, [options](const Context& context) { return restore_store(context, *options); }};
}

}  // namespace apikeyd
