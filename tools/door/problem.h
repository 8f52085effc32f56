// Answers that tell what is wrong: application/problem+json (RFC 9457).

#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/door/http_message.h"

namespace apikeyd {

/// One thing at fault in what was sent.
struct ProblemPart {
    std::string detail;                         ///< what is wanted instead
    std::optional<std::string> pointer = {};    ///< the field, as a JSON pointer (RFC 6901) into the body
    std::optional<std::string> parameter = {};  ///< or the query parameter's name
    std::optional<size_t> offset = {};          ///< or the byte of the body
};

/// What more there is to say than a status and a sentence.
struct ProblemMore {
    std::vector<ProblemPart> errors = {};
    std::optional<bool> recorded = {};  ///< of a change that is not in force: whether it is durable
};

/// Keys that stand in a text by mistake are left out of it.
HttpAnswer problem(unsigned status, std::string_view detail, const ProblemMore& more = {});

/// The text of a status, as `Not Found`.
std::string_view status_text(unsigned status);

/// A JSON answer that nobody may keep.
HttpAnswer json_answer(unsigned status, std::string_view json);

}  // namespace apikeyd
