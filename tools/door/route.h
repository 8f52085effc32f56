// From a request's method and target to what answers it.

#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/log.h"
#include "tools/context.h"
#include "tools/door/caller.h"
#include "tools/door/http_message.h"
#include "tools/door/problem.h"

namespace apikeyd {

/// One request, on its way through a verb. Lives as long as the request.
struct Call {
    const Context& context;
    const HttpRequest& request;
    const Caller& caller;
    Log& log;
    std::string subject = {};                            ///< what stands for {id} or {name} in the path
    std::multimap<std::string, std::string> query = {};  ///< decoded

    /// The first of this name; "" where there is none.
    [[nodiscard]] std::string parameter(const std::string& name) const {
        const auto found = query.find(name);
        return found != query.end() ? found->second : "";
    }
};

using AnswerCall = HttpAnswer (*)(const Call& call);

struct Route {
    std::string_view method;
    std::string_view path;                 ///< {id}: a key's id; {name}: any name
    std::vector<std::string_view> scopes;  ///< of which a caller holds one; the first is told who does not
    std::vector<std::string_view> parameters;  ///< of the query; `tag` may come several times
    AnswerCall answer;
    bool changes;  ///< is logged
};

/// All of them; each file has its own.
const std::vector<Route>& routes();
std::vector<Route> key_routes();
std::vector<Route> self_routes();
std::vector<Route> usage_routes();
std::vector<Route> owner_routes();

/// A failed operation as an answer: 404, 409, 422 with the field, or 503, which says whether the change is
/// recorded. What only the operator of the host is to know, as paths, goes to the log.
HttpAnswer failure_answer(const Call& call, const Failure& failure);

/// What a path about the caller's own key answers. Who has come without one has none to ask about.
HttpAnswer of_own_key(const Call& call, HttpAnswer (*answer)(const Call& call, const std::string& id));

/// Answers about faults that several paths have.
HttpAnswer wrong_parameter(const std::string& name, std::string detail);
HttpAnswer fields_at_fault(std::vector<ProblemPart> faults);
/// The caller may see and touch all of something by `scope`, or this key as its owner: else it is as if it
/// were not there.
Outcome check_theirs(const Caller& caller, std::string_view scope, const KeyRow& row);

/// The text as a part of a path (RFC 3986).
std::string percent_encoded(std::string_view text);
/// The text with its %XX decoded, and in a query each + a blank. nullopt: they are broken, or make no UTF-8.
std::optional<std::string> percent_decoded(std::string_view text, bool query);

/// The path's part that stands for {id} or {name} in `pattern`, "" where it has none; nullopt: another path.
std::optional<std::string> match_path(std::string_view pattern, std::string_view path);

}  // namespace apikeyd
