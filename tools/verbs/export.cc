// export: all keys as `import` reads them.

#include <unistd.h>

#include <memory>
#include <optional>

#include "tools/key_view.h"
#include "tools/progress.h"
#include "tools/read_store.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

Outcome export_keys(const Context& context, const std::string& form) {
    Printer printer;
    std::optional<ListPrinter> csv;
    if (form == "csv") {
        csv.emplace(printer, OutputForm::csv, full_record_names());
    }
    // At the time 0 nothing has expired: what is exported is what the set says.
    // Not among the rows where they go to a terminal, too.
    Progress progress("keys", 0, isatty(STDOUT_FILENO) == 0);
    uint64_t done = 0;
    const auto read = read_store(context, [&](const KeyRow& row) {
        progress.at(++done);
        if (csv) {
            csv->add(full_record(row, 0));
        } else {
            printer.add(json_object(full_record(row, 0)) + "\n");
        }
    });
    if (!read) {
        return tl::unexpected(read.error());
    }
    if (csv) {
        csv->end();
    }
    Outcome printed = printer.end();
    if (printed && read->left_out != 0) {
        return failed(Exit::kNo,
                      std::to_string(read->left_out) +
                          " keys, plans or owners break a rule and are not among them (see above)");
    }
    return printed;
}

}  // namespace

Verb add_export(CommandLine& line) {
    auto form = std::make_shared<std::string>("jsonl");
    Command command = line.add_verb("export", "print all keys in the form that import reads");
    command.add_choice("--form", *form, {"csv", "jsonl"}, "CSV, or a JSON object a line");
    command.set_example("apikeyctl export --form csv > keys.csv");
    return {command, [form](const Context& context) { return export_keys(context, *form); }};
}

}  // namespace apikeyd
