// Who asks, and what they may: by the kernel's word on the Unix socket, or by a key of apikeyd's own.

#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "source/store.h"
#include "tools/context.h"
#include "tools/door/http_message.h"
#include "tools/validator.h"

namespace apikeyd {

/// The scopes that the door asks for. They stand in the key set like any other.
namespace door_scope {
inline constexpr std::string_view kKeysRead = "apikeyd.keys.read";
inline constexpr std::string_view kKeysWrite = "apikeyd.keys.write";
inline constexpr std::string_view kOwnersRead = "apikeyd.owners.read";
inline constexpr std::string_view kOwnersWrite = "apikeyd.owners.write";
inline constexpr std::string_view kPlansRead = "apikeyd.plans.read";
inline constexpr std::string_view kUsageRead = "apikeyd.usage.read";
/// For an owner's own keys: what belongs to their owner.
inline constexpr std::string_view kSelf = "apikeyd.self";
}  // namespace door_scope

/// True when whoever has this scope may do something by the door.
bool is_door_scope(std::string_view scope);

struct Caller {
    bool is_operator = false;  ///< by the Unix socket, without a key: may do all
    std::string key_id = {};   ///< of a caller with a key
    std::string owner = {};    ///< that key's
    KeyTerms terms = {};       ///< that key's
    uid_t uid = 0;             ///< of an operator

    /// Whether a scope, or a branch of scopes, is theirs.
    [[nodiscard]] bool holds(std::string_view scope) const;
    /// Whether a key belongs to the caller's owner; without one, only the caller's own does.
    [[nodiscard]] bool owns(const KeyRow& row) const;
    /// The first of the scopes that the caller may not hand on: those of the door that they do not hold
    /// themselves; "": none.
    [[nodiscard]] std::string_view not_to_grant(const std::vector<std::string>& scopes_granted) const;
};

/// The answer to who was let in by a key that is no longer so in `set`, where nobody else changes it now;
/// nullopt: all is as it was, or they came without one.
std::optional<HttpAnswer> let_in_no_more(const Caller& caller, KeySet& set);

/// Lets callers in. Thread-safe once made; the context outlives it.
class Gate {
  public:
    /// `operators`: the group whose members may do all on the Unix socket, besides root and this process's
    /// user.
    Gate(const Context& context, gid_t operators);

    /// Who sends this request, if they hold one of `scopes`; else the answer. What a key's limits allow is
    /// spent.
    [[nodiscard]] tl::expected<Caller, HttpAnswer> admit(const HttpRequest& request,
                                                         const std::vector<std::string_view>& scopes) const;

    /// libapikey's housekeeping, about once a second.
    void keep_house() const;

  private:
    [[nodiscard]] tl::expected<Caller, HttpAnswer> admit_operator(const HttpRequest& request) const;
    [[nodiscard]] tl::expected<Caller, HttpAnswer> admit_key(
        const HttpRequest& request, std::string_view key, const std::vector<std::string_view>& scopes) const;
    [[nodiscard]] tl::expected<Caller, HttpAnswer> caller_of(
        const apikey_verdict& verdict, const std::vector<std::string_view>& scopes) const;

    const Context& context_;
    gid_t operators_;
    Validator validator_;
};

}  // namespace apikeyd
