#include "source/store_backup.h"

#include <sys/stat.h>
#include <unistd.h>

#include <boost/unordered/unordered_flat_map.hpp>
#include <cerrno>
#include <cstring>
#include <optional>

#include "base/file_io.h"
#include "source/file_lock.h"
#include "source/key_set_file.h"
#include "source/source.h"
#include "source/sqlite_schema.h"
#include "source/temporary_file.h"
#include "source/text_file.h"
#include "source/yaml_editor.h"
#include "source/yaml_source.h"
#include "sqlite/database.h"

namespace apikeyd {

namespace {

bool is_there(const std::string& path) {
    struct stat status {};
    return lstat(path.c_str(), &status) == 0;
}

/// What must not be overwritten, whoever asks for it.
Result<void> check_place(const StoreName& store, const FilePlace& place, bool replace) {
    const Result<FilePlace> source = resolve_file(store.place);
    for (const char* tail : {"", "-wal", "-shm", "-journal", ".lock"}) {
        if (source && source->path + tail == place.path) {
            return fail(place.path + ": is the store itself, or of it (name another file)");
        }
    }
    for (const char* tail : {"-wal", "-journal"}) {
        if (is_there(place.path + tail)) {
            return fail(place.path + ": is in use as a database (there is a " + tail +
                        " beside it; name another file)");
        }
    }
    struct stat there {};
    if (lstat(place.path.c_str(), &there) != 0) {
        return {};
    }
    if (!replace) {
        return fail(place.path + ": is there already (remove it, name another, or have it replaced)");
    }
    if (!S_ISREG(there.st_mode)) {
        return fail(place.path + ": no regular file (name another)");
    }
    return {};
}

Result<void> make_durable(const TemporaryFile& file, const FilePlace& place) {
    return fsync(file.fd()) == 0
               ? Result<void>()
               : Result<void>(tl::unexpected(file_error(place.path, "make it durable", errno)));
}

Result<uint64_t> count_keys(const Database& database) {
    Result<Statement> count = database.prepare("SELECT count(*) FROM keys");
    if (!count || count->step() != SQLITE_ROW) {
        return tl::unexpected(count ? database.last_error("counting its keys") : count.error());
    }
    return static_cast<uint64_t>(count->column_int(0));
}

/// A database of its own in `file` with what `from` holds.
Result<Database> copy_into(const TemporaryFile& file, const Database& from, const BackupProgress& progress) {
    Result<Database> copy = Database::open_for_copy(kKeyStore, file.path());
    Result<void> done = copy ? copy->take_copy_of(from, {{}, progress}) : tl::unexpected(copy.error());
    if (done) {
        done = copy->finish_copy();
    }
    return done ? std::move(copy) : tl::unexpected(done.error());
}

Result<uint64_t> back_up_sqlite(const std::string& store, const TemporaryFile& file,
                                const BackupProgress& progress) {
    const Result<Database> from = Database::open_read_only(kKeyStore, store);
    if (!from) {
        return tl::unexpected(from.error());
    }
    const Result<Database> copy = copy_into(file, *from, progress);
    return copy ? count_keys(*copy) : tl::unexpected(copy.error());
}

Result<uint64_t> back_up_yaml(const std::string& store, const TemporaryFile& file,
                              const BackupOptions& options) {
    const Result<FilePlace> place = resolve_file(store);
    const auto lock = place ? take_file_lock(*place, options.lock_wait_ms_max)
                            : Result<OwnedFd>(tl::unexpected(place.error()));
    const Result<std::string> text =
        lock ? read_text_file(place->path, kKeySetBytesMax) : tl::unexpected(lock.error());
    if (!text) {
        return tl::unexpected(text.error());
    }
    const auto parsed = parse_key_set(*text, store, [](const KeyRow&) {});
    if (!parsed) {
        return fail(parsed.error().joined());
    }
    if (const int error = write_all(file.fd(), *text); error != 0) {
        return tl::unexpected(file_error(file.path(), "write", error));
    }
    return parsed->keys;
}

uint64_t digest_word(const KeyRow& row) {
    uint64_t word = 0;
    std::memcpy(&word, row.digest.data(), sizeof word);
    return word;
}

/// What a copy does to the store that it takes the place of, and where that store stood when it was asked.
struct Comparison {
    RestoreEffect effect;
    std::vector<KeyRow> revived;
    Fingerprint store{};
    Fingerprint copy{};
};

/// Of a source that left rows out nobody can say which keys they were.
Result<void> whole(const SourceContent& content) {
    return content.left_out == 0
               ? Result<void>()
               : Result<void>(fail(content.warnings.front() + "\n(" + std::to_string(content.left_out) +
                                   " rows break a rule: mend or delete them, then restore)"));
}

/// `load` streams the copy's rows.
Result<Comparison> compare(const StoreName& store,
                           const std::function<Result<SourceContent>(const RowSink& sink)>& load) {
    Comparison found;
    boost::unordered_flat_map<uint64_t, bool> revoked;
    if (is_there(store.place)) {
        const auto now = make_source(store)->load(std::nullopt, [&](const KeyRow& row) {
            revoked.emplace(digest_word(row), row.state == KeyState::kRevoked);
        });
        if (!now) {
            return fail(now.error().message + "\n(if this store is lost, move it away, then restore)");
        }
        if (const Result<void> sound = whole(**now); !sound) {
            return tl::unexpected(sound.error());
        }
        found.store = (*now)->fingerprint;
    } else {
        found.effect.no_store = true;
    }
    const Result<SourceContent> then = load([&](const KeyRow& row) {
        const auto known = revoked.find(digest_word(row));
        ++(known == revoked.end() ? found.effect.come : found.effect.keys);
        if (known != revoked.end() && known->second && row.state != KeyState::kRevoked) {
            found.effect.revived.push_back(row.id);
            found.revived.push_back(row);
        }
    });
    const Result<void> sound = then ? whole(*then) : tl::unexpected(then.error());
    if (!sound) {
        return tl::unexpected(sound.error());
    }
    found.copy = then->fingerprint;
    found.effect.go = revoked.size() - found.effect.keys;
    found.effect.keys += found.effect.come;
    return found;
}

bool is_refused(const Comparison& found, const RestoreOptions& options) {
    return found.effect.no_store ? options.revived != Revived::kAccepted
                                 : !found.revived.empty() && options.revived == Revived::kRefused;
}

Result<void> revoke(KeySet& set, std::vector<KeyRow>& rows) {
    Result<void> done;
    for (auto row = rows.begin(); done && row != rows.end(); ++row) {
        row->state = KeyState::kRevoked;
        done = set.upsert(*row);
    }
    return done;
}

/// The copy's text as it is put back.
Result<std::string> restored_text(std::string text, const std::string& path, Comparison& found,
                                  const RestoreOptions& options) {
    if (found.revived.empty() || options.revived == Revived::kAccepted) {
        return text;
    }
    Result<KeySetText> set = KeySetText::parse(std::move(text), path);
    const Result<void> revoked = set ? revoke(*set, found.revived) : tl::unexpected(set.error());
    return revoked ? Result<std::string>(set->text()) : tl::unexpected(revoked.error());
}

/// The copy is read once: what is put back is what was compared.
Result<RestoreEffect> restore_yaml(const StoreName& store, const std::string& path,
                                   const RestoreOptions& options) {
    Result<std::string> text = read_text_file(path, kKeySetBytesMax);
    if (!text) {
        return tl::unexpected(text.error());
    }
    const auto compared = [&] {
        return compare(store, [&](const RowSink& sink) -> Result<SourceContent> {
            const auto parsed = parse_key_set(*text, path, sink);
            return parsed ? Result<SourceContent>(SourceContent{.keys = parsed->keys})
                          : Result<SourceContent>(fail(parsed.error().joined()));
        });
    };
    RestoreEffect effect;
    if (!is_there(store.place)) {
        Result<Comparison> found = compared();
        if (!found || is_refused(*found, options)) {
            return found ? Result<RestoreEffect>(std::move(found->effect)) : tl::unexpected(found.error());
        }
    }
    const auto edit = [&](std::string_view old_text) -> Result<std::string> {
        Result<Comparison> found = compared();
        if (!found) {
            return tl::unexpected(found.error());
        }
        effect = found->effect;
        return is_refused(*found, options) ? Result<std::string>(std::string(old_text))
                                           : restored_text(*text, path, *found, options);
    };
    const RewriteOptions rewrite{options.lock_wait_ms_max, kKeySetBytesMax, KeySetText::empty_text(), {}};
    const Result<Rewrite> written = rewrite_file(store.place, edit, rewrite);
    return written ? Result<RestoreEffect>(std::move(effect)) : tl::unexpected(written.error());
}

/// A copy of the copy, in which these keys are revoked.
Result<Database> copy_revoked(const TemporaryFile& file, const Database& from,
                              const std::vector<KeyRow>& rows) {
    Result<Database> copy = copy_into(file, from, {});
    Result<Statement> revoke = copy ? copy->prepare("UPDATE keys SET state = 'revoked' WHERE sha256 = ?1")
                                    : tl::unexpected(copy.error());
    if (!revoke) {
        return tl::unexpected(revoke.error());
    }
    int rc = copy->execute("BEGIN");
    for (auto row = rows.begin(); rc == SQLITE_OK && row != rows.end(); ++row) {
        rc = revoke->bind(1, std::span<const uint8_t>(row->digest)).run();
    }
    if (rc != SQLITE_OK || copy->execute("COMMIT") != SQLITE_OK) {
        return tl::unexpected(copy->last_error("revoking keys in it"));
    }
    return copy;
}

/// Whether this still is what was compared.
Result<void> check_unchanged(const StoreName& store, const Fingerprint& compared) {
    const auto now = make_source(store)->load(compared, [](const KeyRow&) {});
    return now && !*now ? Result<void>()
                        : fail(store.place + ": was changed while it was looked at (try again)");
}

/// In one transaction of the store, and only while it and the copy are what they were compared as.
Result<void> put_back(const StoreName& store, const std::string& path, const Comparison& found,
                      const Database& from, const RestoreOptions& options) {
    Result<Database> into = Database::open_writable(kKeyStore, store.place);
    if (!into) {
        return tl::unexpected(into.error());
    }
    into->wait_for_locks(options.lock_wait_ms_max);
    const auto unchanged = [&] {
        const Result<void> same =
            found.effect.no_store ? Result<void>() : check_unchanged(store, found.store);
        return same ? check_unchanged({store.kind, path}, found.copy) : same;
    };
    return into->take_copy_of(from, {unchanged, options.progress});
}

Result<RestoreEffect> restore_sqlite(const StoreName& store, const std::string& path,
                                     const RestoreOptions& options) {
    const Result<FilePlace> place = resolve_file(store.place);
    const auto lock = place ? take_file_lock(*place, options.lock_wait_ms_max)
                            : Result<OwnedFd>(tl::unexpected(place.error()));
    if (!lock) {
        return tl::unexpected(lock.error());
    }
    Result<Database> from = Database::open_read_only(kKeyStore, path);
    const Result<void> sound = from ? from->check_integrity() : tl::unexpected(from.error());
    const auto load = [&](const RowSink& sink) -> Result<SourceContent> {
        auto content = make_source({store.kind, path})->load(std::nullopt, sink);
        return content ? Result<SourceContent>(**std::move(content)) : tl::unexpected(content.error());
    };
    Result<Comparison> found = sound ? compare(store, load) : tl::unexpected(sound.error());
    if (!found) {
        return tl::unexpected(found.error());
    }
    if (is_refused(*found, options)) {
        return found->effect;
    }
    TemporaryFile changed;
    if (!found->revived.empty() && options.revived == Revived::kRevokedAgain) {
        remove_stale(*place);
        if (const Result<void> made = changed.create(*place); !made) {
            return tl::unexpected(made.error());
        }
        from = copy_revoked(changed, *from, found->revived);
    }
    const Result<void> done =
        from ? put_back(store, path, *found, *from, options) : tl::unexpected(from.error());
    return done ? Result<RestoreEffect>(found->effect) : tl::unexpected(done.error());
}

/// Whoever keeps a database server has its copies made by it.
Result<void> check_kind(const StoreName& store) {
    return store.is_file() ? Result<void>()
                           : fail(store.text() + ": is copied and put back by pg_dump and pg_restore");
}

}  // namespace

Result<uint64_t> back_up(const StoreName& store, const std::string& path, const BackupOptions& options) {
    if (const Result<void> kind = check_kind(store); !kind) {
        return tl::unexpected(kind.error());
    }
    const Result<FilePlace> place = resolve_file(path);
    if (!place) {
        return tl::unexpected(place.error());
    }
    if (const Result<void> free = check_place(store, *place, options.replace); !free) {
        return tl::unexpected(free.error());
    }
    remove_stale(*place);
    TemporaryFile file;
    if (const Result<void> made = file.create(*place); !made) {
        return tl::unexpected(made.error());
    }
    const Result<uint64_t> keys = store.kind == StoreKind::kSqlite
                                      ? back_up_sqlite(store.place, file, options.progress)
                                      : back_up_yaml(store.place, file, options);
    Result<void> done = keys ? make_durable(file, *place) : tl::unexpected(keys.error());
    if (done) {
        done = file.rename_to(*place, options.replace);
    }
    return done ? keys : tl::unexpected(done.error());
}

Result<RestoreEffect> restore(const StoreName& store, const std::string& path,
                              const RestoreOptions& options) {
    if (const Result<void> kind = check_kind(store); !kind) {
        return tl::unexpected(kind.error());
    }
    return store.kind == StoreKind::kSqlite ? restore_sqlite(store, path, options)
                                            : restore_yaml(store, path, options);
}

}  // namespace apikeyd
