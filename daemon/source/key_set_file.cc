#include "source/key_set_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "base/file_io.h"
#include "base/owned_fd.h"
#include "source/file_lock.h"
#include "source/temporary_file.h"
#include "source/text_file.h"

namespace apikeyd {

namespace {

constexpr mode_t kNewFileMode = 0600;

/// errno, or 0. A key set that its group shares belongs to whoever of them changed it last, as after an
/// editor: only root can give a file away.
int keep_owner(int fd, const struct stat& mine, const struct stat& like) {
    if ((mine.st_uid == like.st_uid && mine.st_gid == like.st_gid) ||
        fchown(fd, like.st_uid, like.st_gid) == 0) {
        return 0;
    }
    const int error = errno;
    const bool kept = is_group_shared(like) &&
                      (mine.st_gid == like.st_gid || fchown(fd, static_cast<uid_t>(-1), like.st_gid) == 0);
    return kept ? 0 : error;
}

/// Content, then owner and mode, on disk. Owner before mode: chown clears set-id bits.
Result<void> fill(const TemporaryFile& file, const FilePlace& place, std::string_view text,
                  const std::optional<struct stat>& like) {
    if (const int error = write_all(file.fd(), text); error != 0) {
        return tl::unexpected(file_error(place.path, "write the new text", error));
    }
    if (like) {
        struct stat mine {};
        if (fstat(file.fd(), &mine) != 0) {
            return tl::unexpected(file_error(file.path(), "examine", errno));
        }
        if (const int error = keep_owner(file.fd(), mine, *like); error != 0) {
            Error refused = file_error(place.path, "keep its owner and group", error);
            refused.message +=
                " (run this as its owner, or have its group share it: group's write permission, a setgid "
                "directory)";
            return tl::unexpected(std::move(refused));
        }
    }
    if (fchmod(file.fd(), like ? like->st_mode & 07777u : kNewFileMode) != 0) {
        return tl::unexpected(file_error(place.path, "keep its mode", errno));
    }
    if (fsync(file.fd()) != 0) {
        return tl::unexpected(file_error(place.path, "make the new text durable", errno));
    }
    return {};
}

/// True while nobody who ignores the lock (an editor) has put another text in place since it was read.
bool unchanged(const FilePlace& place, const std::optional<struct stat>& read) {
    struct stat now {};
    if (stat(place.path.c_str(), &now) != 0) {
        return !read && errno == ENOENT;
    }
    return read && now.st_ino == read->st_ino && now.st_dev == read->st_dev && now.st_size == read->st_size &&
           now.st_mtim.tv_sec == read->st_mtim.tv_sec && now.st_mtim.tv_nsec == read->st_mtim.tv_nsec;
}

Result<void> replace(const FilePlace& place, std::string_view text, const std::optional<struct stat>& old) {
    TemporaryFile temporary;
    if (auto done = temporary.create(place); !done) {
        return done;
    }
    if (auto done = fill(temporary, place, text, old); !done) {
        return done;
    }
    if (!unchanged(place, old)) {
        return fail(place.path + ": changed by someone else while it was being edited (try again)");
    }
    // Under the lock nobody else makes or replaces it but an editor, which was looked for.
    return temporary.rename_to(place, true);
}

}  // namespace

Result<Rewrite> rewrite_file(const std::string& path, const TextEdit& edit, const RewriteOptions& options) {
    const auto place = resolve_file(path);
    if (!place) {
        return tl::unexpected(place.error());
    }
    const auto lock = take_file_lock(*place, options.lock_wait_ms_max);
    if (!lock) {
        return tl::unexpected(lock.error());
    }
    const auto again = resolve_file(path);
    if (!again || again->path != place->path) {
        return fail(path + ": points elsewhere since the lock was asked for (try again)");
    }
    remove_stale(*place);
    std::string old_text = options.initial_text;
    std::optional<struct stat> old_status;
    if (options.initial_text.empty() || access(place->path.c_str(), F_OK) == 0) {
        auto read = read_text_file(place->path, options.file_bytes_max, &old_status.emplace());
        if (!read) {
            return tl::unexpected(read.error());
        }
        old_text = *std::move(read);
    }
    const auto new_text = edit(old_text);
    if (!new_text) {
        return tl::unexpected(new_text.error());
    }
    Rewrite result{fingerprint(old_text), fingerprint(*new_text), false};
    if (!old_status || *new_text != old_text) {
        if (auto done = replace(*place, *new_text, old_status); !done) {
            return tl::unexpected(done.error());
        }
        result.written = true;
    }
    if (options.then_locked) {
        options.then_locked(result);
    }
    return result;
}

}  // namespace apikeyd
