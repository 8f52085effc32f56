// All verbs.

#pragma once

#include <vector>

#include "tools/verb.h"

namespace apikeyd {

Verb add_issue(CLI::App& app);
Verb add_list(CLI::App& app);
Verb add_show(CLI::App& app);
Verb add_disable(CLI::App& app);
Verb add_enable(CLI::App& app);
Verb add_revoke(CLI::App& app);
Verb add_rotate(CLI::App& app);
Verb add_verify(CLI::App& app);
Verb add_usage(CLI::App& app);
Verb add_reload(CLI::App& app);
Verb add_status(CLI::App& app);
Verb add_doctor(CLI::App& app);
Verb add_gen(CLI::App& app);

/// In the order in which --help lists them.
inline const std::vector<AddVerb> kVerbs = {
    add_issue,  add_list,  add_show,   add_disable, add_enable, add_revoke, add_rotate,
    add_verify, add_usage, add_reload, add_status,  add_doctor, add_gen,
};

}  // namespace apikeyd
