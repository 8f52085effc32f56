#include "tools/validator.h"

#include <unistd.h>

namespace apikeyd {

Validator open_validator(const Context& context, const std::string& environment) {
    apikey_options options{};
    options.size = sizeof options;
    options.directory = context.directory().c_str();
    options.instance = context.instance().c_str();
    options.check_owner = context.own_directory() ? 1 : 0;
    options.expected_owner = geteuid();
    options.required_environment = environment.c_str();
    apikey_client* client = nullptr;
    (void)apikey_open(&options, &client);  // apikey_status() tells how it went
    return Validator(client);
}

apikey_status_info validator_status(const Validator& validator) {
    apikey_status_info info{};
    info.size = sizeof info;
    apikey_status(validator.get(), &info);
    return info;
}

}  // namespace apikeyd
