// Servers of one run: they validate every key, judge the answers by what the source said and the daemon
// answered, and keep their own tally of what they counted.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "apikey/apikey.h"
#include "tests/crash/key_set.h"
#include "tests/crash/writer.h"

namespace apikey::crash {

enum class Expected : uint8_t { kEither, kValid, kNotValid };

/// Not thread-safe.
class Witness {
  public:
    explicit Witness(const Site& site) : site_(site) {}
    ~Witness();
    Witness(const Witness&) = delete;
    Witness& operator=(const Witness&) = delete;

    /// Another server attaches, and goes with what the daemon publishes.
    void attach();
    /// Another server attaches to what is current, and cannot map anything else from then on.
    void attach_and_stay();
    /// All validate every key. Answers the first broken promise; empty when all are kept.
    std::string round(const KeySet& keys, const std::vector<Expected>& expected);
    /// All servers map what is current, and let go of the rest.
    void let_go();
    /// Whether `control` may name no generation now, so that a server that attaches finds none.
    void may_find_none(bool none) { may_find_none_ = none; }
    /// Closes all.
    void leave();
    /// What the store says is what was tallied. Answers the first difference.
    std::string compare(const KeySet& keys) const;
    /// And what the denial log tells; for each kill of a writer a line may stand there twice.
    std::string compare_denials(unsigned kills) const;

    uint64_t judged() const { return judged_; }

  private:
    struct Counts {
        uint64_t allowed = 0;
        uint64_t denied = 0;
        friend bool operator==(const Counts&, const Counts&) = default;
    };
    apikey_client* open() const;
    std::string judge(apikey_client* client, const Key& key, Expected expected, bool stays);

    const Site& site_;
    std::vector<apikey_client*> moving_;
    std::vector<apikey_client*> staying_;
    std::map<std::string, Counts> by_id_;
    std::array<uint64_t, 16> by_code_{};
    bool may_find_none_ = false;
    mutable uint64_t judged_ = 0;
};

}  // namespace apikey::crash
