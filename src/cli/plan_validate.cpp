// tessera plan validate: predictions beside published figures, row by row and summed up.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/plan_commands.h"
#include "core/file.h"
#include "plan/validate/training_report.h"

namespace tessera::cli {
namespace {

struct ValidateOptions {
  std::string training, serving, json, constants;
  bool summary_only = false;
};

Status write_json(const std::string& path, const nlohmann::json& value) {
  std::string text = value.dump(2) + "\n";
  if (path != "-") return write_file_atomically(path, text);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return {};
}

Status validate_training(const ValidateOptions& options) {
  if (!options.constants.empty()) {
    TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(options.constants));
    TESSERA_RETURN_IF_ERROR(plan::override_training_constants(text, options.constants));
  }
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(options.training));
  TESSERA_ASSIGN_OR_RETURN(plan::CsvTable table, plan::parse_csv(text, options.training));
  TESSERA_ASSIGN_OR_RETURN(auto cases, plan::read_training_cases(table));
  auto checks = plan::check_training(std::move(cases));
  auto summary = plan::summarise_training(checks);
  FILE* out = options.json == "-" ? stderr : stdout;
  if (!options.summary_only) fmt::print(out, "{}\n", plan::row_table(checks));
  fmt::print(out, "{}{}", plan::summary_table(summary), plan::verdict_line(plan::memory_verdicts(checks)));
  if (options.json.empty()) return {};
  return write_json(options.json, plan::training_json(checks, summary));
}

Status validate(const ValidateOptions& options) {
  if (options.training.empty() == options.serving.empty())
    return invalid("give either --training or --serving with a CSV file of published results");
  if (options.serving.empty()) return validate_training(options);
  if (!options.constants.empty())
    return invalid("--constants are those of training; leave it out with --serving");
  return validate_serving(options.serving, options.json, options.summary_only);
}

}  // namespace

void add_plan_validate(CLI::App& plan_command) {
  auto options = std::make_shared<ValidateOptions>();
  CLI::App* command = plan_command.add_subcommand("validate", "Compare predictions with published figures");
  command->add_option("--training", options->training, "CSV of published training runs");
  command->add_option("--serving", options->serving, "CSV of published serving results, of either form");
  command->add_option("--json", options->json, "Write rows and summary as JSON; - for standard output");
  command->add_option("--constants", options->constants, "TOML file of training constants to use instead");
  command->add_flag("--summary", options->summary_only, "Leave out the rows");
  command->footer(
      "Example:\n"
      "  tessera plan validate --training data/published/training_cases.csv --json errors.json\n"
      "  tessera plan validate --serving data/published/serving_cases.csv --summary");
  command->callback([options] {
    if (Status status = validate(*options); !status) report_error(status.error());
  });
}

}  // namespace tessera::cli
