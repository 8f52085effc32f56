// A request's JSON body, read strictly: each name once, and no name that nobody reads.

#pragma once

#include <boost/json/object.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "tools/door/http_message.h"
#include "tools/door/problem.h"

namespace apikeyd {

/// The fields of one JSON object. Whoever reads a field has asked for its name; faults() names what is left.
class JsonBody {
  public:
    /// `required`: a body must be there; else none is an empty object. `types`: the media types that it may
    /// have. The answer is 411, 415 or 400, and tells where the text breaks.
    static tl::expected<JsonBody, HttpAnswer> read(const HttpRequest& request, bool required,
                                                   const std::vector<std::string_view>& types);

    /// nullptr where it does not stand there; null may.
    const boost::json::value* find(std::string_view name);
    /// As it is written; for what find() has found.
    [[nodiscard]] std::string raw(std::string_view name) const;

    /// nullptr where it does not stand there, is null, or is no string, which is a fault.
    const boost::json::string* text(std::string_view name);
    /// The strings of a list; a fault names the element. nullopt as above.
    std::optional<std::vector<std::string>> texts(std::string_view name);
    /// nullopt as above.
    const boost::json::array* array(std::string_view name);
    [[nodiscard]] bool is_null(std::string_view name);

    /// `at`: behind the field's name, as "/0".
    void fault(std::string_view name, std::string detail, const std::string& at = "");
    /// Those found so far, and each name that nobody asked for.
    [[nodiscard]] std::vector<ProblemPart> faults() const;

  private:
    boost::json::object object_;
    std::string written_;
    std::set<std::string, std::less<>> known_;
    std::vector<ProblemPart> faults_;
};

/// The name that stands twice in one object of `json`, which is known to be JSON; nullopt: none does.
std::optional<std::string> name_given_twice(std::string_view json);

/// A JSON pointer's part for a name (RFC 6901).
std::string pointer_part(std::string_view name);

}  // namespace apikeyd
