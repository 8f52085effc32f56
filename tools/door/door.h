// The admin door: the verbs of apikeyctl as paths. openapi.json tells all of them.

#pragma once

#include <sys/types.h>

#include "runtime/log.h"
#include "tools/context.h"
#include "tools/door/caller.h"
#include "tools/door/http_message.h"

namespace apikeyd {

/// Thread-safe once made. The context and the log outlive it.
class Door {
  public:
    Door(const Context& context, gid_t operators, Log& log)
        : context_(context), gate_(context, operators), log_(log) {}

    /// Answers a request; blocks as long as the verb does.
    [[nodiscard]] HttpAnswer answer(const HttpRequest& request) const;

    void keep_house() const { gate_.keep_house(); }

  private:
    const Context& context_;
    Gate gate_;
    Log& log_;
};

}  // namespace apikeyd
