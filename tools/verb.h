// What a verb is to main(). To add one: a file under verbs/ that defines its add_…(), and its line in
// verbs/registry.h.

#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "tools/context.h"
#include "tools/outcome.h"

namespace apikeyd {

/// A verb's subcommand, and what runs when it was chosen. The options live in `run`'s captures.
struct Verb {
    CLI::App* command;
    std::function<Outcome(const Context&)> run;
};

/// Adds a verb's subcommand and options to `app`.
using AddVerb = Verb (*)(CLI::App& app);

/// Adds the positional ID, which must look like one. What was given is not repeated in the error: it may be a
/// whole key.
void add_id(CLI::App& command, std::string& id);

}  // namespace apikeyd
