// libapikey's client, as the tool opens it.

#pragma once

#include <apikey/apikey.h>

#include <memory>
#include <string>

#include "tools/context.h"

namespace apikeyd {

struct CloseValidator {
    void operator()(apikey_client* client) const { apikey_close(client); }
};
using Validator = std::unique_ptr<apikey_client, CloseValidator>;

/// A client of the context's instance, as a server there would have, that takes keys of one environment ("":
/// of any); attached or not. nullptr when there is no memory or the directory's name cannot be used.
Validator open_validator(const Context& context, const std::string& environment = "");

/// What the client is attached to.
apikey_status_info validator_status(const Validator& validator);

}  // namespace apikeyd
