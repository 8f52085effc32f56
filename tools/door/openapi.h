// The document that describes the door, as it is served.

#pragma once

#include <string_view>

namespace apikeyd {

/// The content of openapi.json.
extern const std::string_view kOpenApi;

}  // namespace apikeyd
