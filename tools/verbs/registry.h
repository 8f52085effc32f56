// All verbs.

#pragma once

#include <vector>

#include "tools/verb.h"

namespace apikeyd {

Verb add_issue(CommandLine& line);
Verb add_list(CommandLine& line);
Verb add_show(CommandLine& line);
Verb add_update(CommandLine& line);
Verb add_disable(CommandLine& line);
Verb add_enable(CommandLine& line);
Verb add_revoke(CommandLine& line);
Verb add_rotate(CommandLine& line);
Verb add_regenerate(CommandLine& line);
Verb add_delete(CommandLine& line);
Verb add_import(CommandLine& line);
Verb add_export(CommandLine& line);
Verb add_migrate(CommandLine& line);
Verb add_backup(CommandLine& line);
Verb add_restore(CommandLine& line);
Verb add_plan_list(CommandLine& line);
Verb add_plan_show(CommandLine& line);
Verb add_plan_create(CommandLine& line);
Verb add_plan_update(CommandLine& line);
Verb add_plan_delete(CommandLine& line);
Verb add_owner_list(CommandLine& line);
Verb add_owner_show(CommandLine& line);
Verb add_owner_create(CommandLine& line);
Verb add_owner_update(CommandLine& line);
Verb add_owner_delete(CommandLine& line);
Verb add_scope_list(CommandLine& line);
Verb add_scope_create(CommandLine& line);
Verb add_scope_delete(CommandLine& line);
Verb add_verify(CommandLine& line);
Verb add_explain(CommandLine& line);
Verb add_usage(CommandLine& line);
Verb add_reload(CommandLine& line);
Verb add_status(CommandLine& line);
Verb add_top(CommandLine& line);
Verb add_doctor(CommandLine& line);
Verb add_fleet(CommandLine& line);
Verb add_capacity(CommandLine& line);
Verb add_gen(CommandLine& line);

/// In the order in which --help lists them.
inline const std::vector<AddVerb> kVerbs = {
    add_issue,        add_list,        add_show,         add_update,       add_disable,      add_enable,
    add_revoke,       add_rotate,      add_regenerate,   add_delete,       add_import,       add_export,
    add_migrate,      add_backup,      add_restore,      add_plan_list,    add_plan_show,    add_plan_create,
    add_plan_update,  add_plan_delete, add_owner_list,   add_owner_show,   add_owner_create, add_owner_update,
    add_owner_delete, add_scope_list,  add_scope_create, add_scope_delete, add_verify,       add_explain,
    add_usage,        add_reload,      add_status,       add_top,          add_doctor,       add_fleet,
    add_capacity,     add_gen,
};

}  // namespace apikeyd
