// A request and its answer, as far as the door's own code needs to know HTTP.

#pragma once

#include <apikey/apikey.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/unix_server.h"
#include "tools/door/secret_text.h"

namespace apikeyd {

/// Whole, and within the server's bounds. What may hold a key is secret.
struct HttpRequest {
    std::string method;
    SecretText target;                      ///< path and query, as sent
    std::vector<SecretText> authorization;  ///< the headers' values, each as sent
    std::vector<SecretText> api_key;
    std::optional<std::string> content_type;
    bool has_length = false;  ///< a body was announced, by its length or in chunks
    SecretText body;
    std::optional<Peer> peer;               ///< on the Unix socket: who connected
    std::optional<apikey_address> address;  ///< on TCP: from where
};

/// Content-Length, Date and Connection come from the server.
struct HttpAnswer {
    unsigned status = 500;
    std::string content_type = {};  ///< empty: no body
    std::vector<std::pair<std::string, std::string>> headers = {};
    SecretText body = {};
};

}  // namespace apikeyd
