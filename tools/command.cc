#include "tools/command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <map>

#include "source/config.h"

namespace apikeyd {

namespace {

void add_globals(CLI::App& app, GlobalOptions& globals) {
    const std::map<std::string, OutputForm> forms = {
        {"table", OutputForm::table}, {"json", OutputForm::json}, {"csv", OutputForm::csv}};
    app.add_option("-c,--config", globals.config_path,
                   "the daemon's configuration file [/etc/apikeyd/apikeyd.yaml]");
    app.add_option("--store", globals.store,
                   "the key set, yaml:PATH, sqlite:PATH or postgresql://... [what the configuration says]");
    app.add_option("--directory", globals.directory,
                   "the base directory of instances [what the configuration says]");
    const auto check_instance = [](const std::string& name) {
        return is_instance_name(name) ? std::string() : std::string("no instance's name");
    };
    app.add_option("--instance", globals.instance, "the daemon's instance [what the configuration says]")
        ->check(CLI::Validator(check_instance, ""));
    app.add_option("--output", globals.output, "table, json or csv [table]")
        ->transform(CLI::CheckedTransformer(forms).description(""));
    // Also behind the verb, where people put them.
    app.fallthrough();
}

/// Of what was given nothing is repeated in the error: it may be a whole key.
CLI::Option* add_id_option(CLI::App& app, std::string& id) {
    const auto check = [](const std::string& given) {
        const bool base62 =
            std::all_of(given.begin(), given.end(), [](unsigned char c) { return std::isalnum(c) != 0; });
        return given.size() == kKeyIdLength && base62
                   ? std::string()
                   : std::string(
                         "want a key's id, the 12 letters and digits between its last two underscores, and "
                         "never the whole key");
    };
    return app.add_option("ID", id, "the key's id, 12 letters and digits")->check(CLI::Validator(check, ""));
}

/// CLI11's text may repeat an argument, and that may be a key given by mistake.
std::string usage_text(const CLI::Error& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError)) {
        return "an argument too many (a key is read from standard input, never from the command line)";
    }
    return error.what();
}

}  // namespace

void Command::add_option(const std::string& name, std::string& value, const std::string& description) {
    app_->add_option(name, value, description)->capture_default_str();
}

void Command::add_option(const std::string& name, std::optional<std::string>& value,
                         const std::string& description) {
    app_->add_option(name, value, description);
}

void Command::add_list(const std::string& name, std::vector<std::string>& values,
                       const std::string& description) {
    app_->add_option(name, values, description)->allow_extra_args(false);
}

void Command::add_required(const std::string& name, std::string& value, const std::string& description) {
    app_->add_option(name, value, description)->required();
}

void Command::add_required(const std::string& name, uint64_t& value, const std::string& description) {
    app_->add_option(name, value, description)->required();
}

void Command::add_choice(const std::string& name, std::string& value, const std::vector<std::string>& choices,
                         const std::string& description) {
    app_->add_option(name, value, description)->check(CLI::IsMember(choices));
}

void Command::add_choices(const std::string& name, std::vector<std::string>& values,
                          const std::vector<std::string>& choices, const std::string& description) {
    app_->add_option(name, values, description)->allow_extra_args(false)->check(CLI::IsMember(choices));
}

void Command::add_number(const std::string& name, uint64_t& value, uint64_t min, uint64_t max,
                         const std::string& description) {
    app_->add_option(name, value, description)->check(CLI::Range(min, max))->capture_default_str();
}

void Command::add_required_number(const std::string& name, uint64_t& value, uint64_t min, uint64_t max,
                                  const std::string& description) {
    app_->add_option(name, value, description)->check(CLI::Range(min, max))->required();
}

void Command::add_flag(const std::string& name, bool& value, const std::string& description) {
    app_->add_flag(name, value, description);
}

void Command::add_id(std::string& id) {
    add_id_option(*app_, id)->required();
}

void Command::add_optional_id(std::string& id) {
    add_id_option(*app_, id);
}

void Command::set_example(const std::string& example) {
    app_->footer("Example:\n  " + example);
}

bool Command::chosen() const {
    return app_->parsed();
}

CommandLine::CommandLine()
    : app_(std::make_unique<CLI::App>(
          "Issues, revokes and inspects the API keys of apikeyd. See apikeyctl(1).")) {
    app_->require_subcommand(1);
    app_->set_version_flag("--version", "apikeyctl " APIKEYD_VERSION);
    app_->get_formatter()->column_width(30);
    add_globals(*app_, globals_);
}

CommandLine::~CommandLine() = default;

Command CommandLine::add_verb(const std::string& name, const std::string& summary) {
    return Command(*app_->add_subcommand(name, summary));
}

Command CommandLine::add_verb(const Noun& noun, const std::string& name, const std::string& summary) {
    const auto present =
        app_->get_subcommands([&](const CLI::App* one) { return one->get_name() == noun.name; });
    CLI::App* of_noun = present.empty() ? app_->add_subcommand(noun.name, noun.summary)->require_subcommand(1)
                                        : present.front();
    return Command(*of_noun->add_subcommand(name, summary));
}

std::optional<Exit> CommandLine::parse(int argc, const char* const* argv) {
    try {
        app_->parse(argc, argv);
    } catch (const CLI::Success& asked) {
        app_->exit(asked);
        return Exit::kDone;
    } catch (const CLI::ParseError& error) {
        say("apikeyctl: " + usage_text(error) + "\nTry --help.");
        return Exit::kUsage;
    }
    return std::nullopt;
}

}  // namespace apikeyd
