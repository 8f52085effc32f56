// Copies of a store, and stores put back from them. A copy is a file of the same kind as the store.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "source/store_name.h"

namespace apikeyd {

/// How far it is; may be empty. Pages or bytes.
using BackupProgress = std::function<void(uint64_t done, uint64_t total)>;

struct BackupOptions {
    bool replace = false;  ///< a file that stands there already; else that is an error
    uint32_t lock_wait_ms_max = 10'000;
    BackupProgress progress = {};
};

/// Writes what the store holds at one moment to the file `path`, of mode 0600: whole, checked and durable, or
/// not at all. Who changes an SQLite store meanwhile does not wait; of a YAML file it is the lock's turn. How
/// many keys it has.
Result<uint64_t> back_up(const StoreName& store, const std::string& path, const BackupOptions& options);

/// What putting a copy back does to a store; all of it none where there is no store.
struct RestoreEffect {
    uint64_t keys = 0;                      ///< of the copy
    uint64_t come = 0;                      ///< that the store does not have
    uint64_t go = 0;                        ///< that only the store has
    std::vector<std::string> revived = {};  ///< ids of keys that the store has revoked and the copy has not
    bool no_store = false;                  ///< there is none that could say what was revoked since
};

enum class Revived : uint8_t {
    kRefused,       ///< the store stays as it is; where there is none, none is made
    kRevokedAgain,  ///< what is put back has them revoked
    kAccepted,
};

struct RestoreOptions {
    Revived revived = Revived::kRefused;
    uint32_t lock_wait_ms_max = 10'000;
    BackupProgress progress = {};
};

/// Puts what the file `path` holds in the place of all that the store holds, durably, or leaves the store as
/// it was: also when the effect has revived keys, or may have where there is no store, and they are refused,
/// which is no error. Rows that break a rule, on either side, are one: nobody could say what became of them.
/// Readers see one or the other. An SQLite store stays the file that it is, and nobody who has it open is
/// disturbed; where there is none it is made. Holds 16 bytes a key of the store.
Result<RestoreEffect> restore(const StoreName& store, const std::string& path, const RestoreOptions& options);

}  // namespace apikeyd
