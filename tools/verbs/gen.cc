// gen: a key set of many keys for trials, with the plaintexts in a file of their own.

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <memory>

#include "base/file_io.h"
#include "base/hex.h"
#include "base/owned_fd.h"
#include "shm/key_form.h"
#include "shm/sha256.h"
#include "source/key_set_limits.h"
#include "source/rfc3339.h"
#include "source/text_file.h"
#include "tools/new_key.h"
#include "tools/progress.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

namespace shm = apikey::shm;

constexpr uint64_t kKeysMax = 1'500'000;
constexpr size_t kRowBytesMax = 176;  // with the longest environment and owner's number
static_assert((kKeysMax + 1) * kRowBytesMax <= kKeySetBytesMax && kKeysMax <= kKeySetRowsMax,
              "what is made here can be loaded");
constexpr size_t kRandomPerKey = 64;
constexpr size_t kKeysAtOnce = 4096;

struct GenOptions {
    uint64_t count = 0;
    std::string keys_path;
    std::string plain_path;
    std::string environment = "test";
    uint64_t owners = 1;
};

/// A file that is made here, written in large pieces, and removed again unless it is kept.
class NewFile {
  public:
    NewFile() { buffer_.reserve(kBufferBytes); }
    NewFile(const NewFile&) = delete;
    NewFile& operator=(const NewFile&) = delete;
    ~NewFile() {
        explicit_bzero(buffer_.data(), buffer_.size());
        if (file_.is_open() && !kept_) {
            unlink(path_.c_str());
        }
    }

    Outcome create(const std::string& path) {
        path_ = path;
        file_ = OwnedFd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
        if (!file_.is_open()) {
            const int error = errno;
            return error == EEXIST
                       ? failed(Exit::kNo, path + ": is there already (remove it, or name another)")
                       : failed(Exit::kUnreachable, file_error(path, "create", error));
        }
        return {};
    }

    /// The reserved buffer never grows, so no copy of what was in it is left behind.
    Outcome append(std::string_view text) {
        if (buffer_.size() + text.size() > kBufferBytes) {
            if (Outcome flushed = flush(); !flushed) {
                return flushed;
            }
        }
        buffer_ += text;
        return {};
    }

    /// All of it on disk; what then may still fail elsewhere takes the file away as well.
    Outcome finish() {
        if (Outcome flushed = flush(); !flushed) {
            return flushed;
        }
        if (fsync(file_.get()) != 0) {
            return failed(Exit::kUnreachable, file_error(path_, "make it durable", errno));
        }
        return {};
    }
    void keep() { kept_ = true; }

  private:
    static constexpr size_t kBufferBytes = size_t{1} << 20;

    Outcome flush() {
        if (const int error = write_all(file_.get(), buffer_); error != 0) {
            return failed(Exit::kUnreachable, file_error(path_, "write", error));
        }
        explicit_bzero(buffer_.data(), buffer_.size());
        buffer_.clear();
        return {};
    }

    std::string path_;
    OwnedFd file_;
    std::string buffer_;
    bool kept_ = false;
};

/// Random bytes from the kernel for many keys at a time: a system call for each would cost more than the key.
class RandomPool {
  public:
    ~RandomPool() { explicit_bzero(bytes_, sizeof bytes_); }

    const uint8_t* take() {
        if (used_ == sizeof bytes_) {
            for (size_t done = 0; done < sizeof bytes_;) {
                const ssize_t got = getrandom(bytes_ + done, sizeof bytes_ - done, 0);
                done += got > 0 ? static_cast<size_t>(got) : 0;  // it fails with EINTR only
            }
            used_ = 0;
        }
        used_ += kRandomPerKey;
        return bytes_ + used_ - kRandomPerKey;
    }

  private:
    uint8_t bytes_[kRandomPerKey * 1024];
    size_t used_ = sizeof bytes_;
};

Outcome write_keys(const GenOptions& options, NewFile& keys, NewFile& plain) {
    const std::string prefix = "ak_" + options.environment;
    const std::string created = format_rfc3339(now_s());
    RandomPool pool;
    Progress progress("keys", options.count);
    char key[shm::kNativeKeyLengthMax + 1];
    std::string row;
    for (uint64_t i = 0; i < options.count;) {
        const size_t length =
            shm::native_key_make(prefix.data(), prefix.size(), pool.take(), kRandomPerKey, key);
        if (length == 0) {
            continue;  // too many random bytes were rejected
        }
        uint8_t digest[shm::kDigestLength];
        shm::sha256_kernel().hash(key, length, digest);
        row = "  - {id: ";
        row.append(shm::native_key_id(key, length), shm::kIdLength);
        row += ", sha256: ";
        append_hex(row, digest);
        row += ", environment: " + options.environment + ", owner: owner-" +
               std::to_string(i % options.owners) + ", created: " + created + "}\n";
        assert(row.size() <= kRowBytesMax);
        key[length] = '\n';
        for (auto [file, text] :
             {std::pair<NewFile*, std::string_view>(&keys, row), {&plain, {key, length + 1}}}) {
            if (Outcome written = file->append(text); !written) {
                explicit_bzero(key, sizeof key);
                return written;
            }
        }
        if (++i % kKeysAtOnce == 0) {
            progress.at(i);
        }
    }
    explicit_bzero(key, sizeof key);
    return {};
}

Outcome generate(const GenOptions& options) {
    if (options.count < 1 || options.count > kKeysMax) {
        return failed(Exit::kUsage, "N: want 1 to " + std::to_string(kKeysMax) +
                                        " keys (the file of a key set is at most " +
                                        std::to_string(kKeySetBytesMax >> 20) + " MiB)");
    }
    if (!environment_fits(options.environment)) {
        return failed(Exit::kUsage, std::string("--environment: ") + kEnvironmentWanted);
    }
    if (Outcome guarded = guard_plaintext(); !guarded) {
        return guarded;
    }
    NewFile keys;
    NewFile plain;
    for (auto [file, path] : {std::pair(&keys, &options.keys_path), std::pair(&plain, &options.plain_path)}) {
        if (Outcome created = file->create(*path); !created) {
            return created;
        }
    }
    if (Outcome begun = keys.append("version: 1\nkeys:\n"); !begun) {
        return begun;
    }
    if (Outcome written = write_keys(options, keys, plain); !written) {
        return written;
    }
    for (NewFile* file : {&plain, &keys}) {
        if (Outcome finished = file->finish(); !finished) {
            return finished;
        }
    }
    // Both or none: keys in plaintext that are in no key set are only something to lose.
    plain.keep();
    keys.keep();
    return {};
}

}  // namespace

Verb add_gen(CommandLine& line) {
    auto options = std::make_shared<GenOptions>();
    Command command = line.add_verb("gen", "make a key set of N keys for trials");
    command.add_required("N", options->count, "how many keys, 1 to " + std::to_string(kKeysMax));
    command.add_required("--keys", options->keys_path, "the key set to make, with mode 0600");
    command.add_required("--plain", options->plain_path,
                         "the file of keys to make, one a line, with mode 0600");
    command.add_option("--environment", options->environment, "1 to 5 characters a-z and 0-9");
    command.add_number("--owners", options->owners, 1, kKeysMax, "how many owners share the keys");
    command.set_example("apikeyctl gen 100000 --keys trial.yaml --plain trial.txt");
    return {command, [options](const Context&) { return generate(*options); }};
}

}  // namespace apikeyd
