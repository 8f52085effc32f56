// What a verb is to main(). To add one: a file under verbs/ that defines its add_…(), and its line in
// verbs/registry.h.

#pragma once

#include <functional>

#include "tools/command.h"
#include "tools/context.h"
#include "tools/outcome.h"

namespace apikeyd {

/// A verb's command, and what runs when it was chosen. The options live in `run`'s captures.
struct Verb {
    Command command;
    std::function<Outcome(const Context&)> run;
};

/// Adds a verb's command and options to `line`.
using AddVerb = Verb (*)(CommandLine& line);

}  // namespace apikeyd
