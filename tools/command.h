// The command line: what verbs and options there are, and what was given of them. CLI11 takes seconds to
// compile, so command.cc alone includes it.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/context.h"
#include "tools/outcome.h"

namespace CLI {
class App;
}

namespace apikeyd {

/// One verb's command. CommandLine::parse() stores what is given in the variables that the options were added
/// with, which must live until then. The name of an option begins with dashes, that of a positional does not.
class Command {
  public:
    explicit Command(CLI::App& app) : app_(&app) {}

    /// What `value` holds is the default, and --help shows it.
    void add_option(const std::string& name, std::string& value, const std::string& description);
    /// One that may be left out, and is not the same as one that is given empty.
    void add_option(const std::string& name, std::optional<std::string>& value,
                    const std::string& description);
    /// One that may be given several times.
    void add_list(const std::string& name, std::vector<std::string>& values, const std::string& description);
    void add_required(const std::string& name, std::string& value, const std::string& description);
    void add_required(const std::string& name, uint64_t& value, const std::string& description);
    void add_choice(const std::string& name, std::string& value, const std::vector<std::string>& choices,
                    const std::string& description);
    void add_choices(const std::string& name, std::vector<std::string>& values,
                     const std::vector<std::string>& choices, const std::string& description);
    /// From `min` to `max`; the default is shown as add_option() shows it.
    void add_number(const std::string& name, uint64_t& value, uint64_t min, uint64_t max,
                    const std::string& description);
    /// A positional of that kind.
    void add_required_number(const std::string& name, uint64_t& value, uint64_t min, uint64_t max,
                             const std::string& description);
    void add_flag(const std::string& name, bool& value, const std::string& description);

    /// The positional ID, which must look like one.
    void add_id(std::string& id);
    /// The same for a verb that can do without.
    void add_optional_id(std::string& id);

    /// The command that --help ends with.
    void set_example(const std::string& example);

    /// True after CommandLine::parse() when this verb is to run.
    [[nodiscard]] bool chosen() const;

  private:
    CLI::App* app_;
};

/// What some verbs are about that are not about keys.
struct Noun {
    std::string name;
    std::string summary;
};

/// All of it: the options that the verbs share, and the verbs, of which exactly one must be given.
class CommandLine {
  public:
    CommandLine();
    ~CommandLine();
    CommandLine(const CommandLine&) = delete;
    CommandLine& operator=(const CommandLine&) = delete;

    /// The command lives as long as this.
    Command add_verb(const std::string& name, const std::string& summary);
    /// The same for a verb that stands behind its noun, as `plan list`. The noun comes with its first verb.
    Command add_verb(const Noun& noun, const std::string& name, const std::string& summary);

    /// nullopt: a verb is to run. Else how it ends: --help or --version was answered, or the usage is wrong
    /// and the error has been said.
    std::optional<Exit> parse(int argc, const char* const* argv);

    /// As parse() found them.
    [[nodiscard]] const GlobalOptions& globals() const { return globals_; }

  private:
    GlobalOptions globals_;
    std::unique_ptr<CLI::App> app_;
};

}  // namespace apikeyd
