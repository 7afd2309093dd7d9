#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "cli/commands.h"
#include "core/nearest.h"

namespace tessera::cli {

void report_error(const Error& error) {
  std::fprintf(stderr, "error: %s\n", error.message.c_str());
  exit_status = 1;
}

namespace {

std::vector<std::string> subcommand_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

// CLI11 would call a mistyped subcommand an unexpected argument; name the nearest instead.
bool refuse_unknown_subcommand(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return false;
  auto names = subcommand_names(app);
  for (const auto& name : names)
    if (name == argv[1]) return false;
  report_error(invalid("unknown subcommand '{}'{}\n       known: {}", argv[1], did_you_mean(argv[1], names),
                       fmt::join(names, ", ")));
  return true;
}

// An option that no one knows: the nearest one of the subcommand it was given to.
void refuse_unknown_option(const CLI::App& app) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  std::vector<std::string> names, unknown = app.remaining(true);
  for (const CLI::Option* option : command->get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  std::string first = unknown.empty() ? "" : unknown.front();
  for (const std::string& word : unknown)
    if (word.starts_with("--")) first = word;
  report_error(invalid("{}: unexpected '{}'{}\n       see: tessera {} --help", command->get_name(), first,
                       did_you_mean(first, names), command->get_name()));
}

}  // namespace
}  // namespace tessera::cli

int main(int argc, char** argv) {
  using namespace tessera::cli;
  CLI::App app{"Tessera plans, trains and serves models too big for one machine.", "tessera"};
  app.require_subcommand(1);
  app.set_version_flag("--version", "tessera " TESSERA_VERSION);
  app.set_help_all_flag("--help-all", "Show the help of every subcommand");
  app.footer("Start with: tessera plan train --help");
  add_plan(app);
  add_tokenizer(app);
  add_data(app);
  add_recsys_capacity(app);
  add_report(app);
  add_doctor(app);
#ifdef TESSERA_WITH_TORCH
  add_calibrate(app);
  add_launch(app);
  add_train(app);
  add_verify(app);
  add_drill(app);
  add_checkpoint(app);
  add_eval(app);
  add_generate(app);
  add_serve(app);
  add_recsys_train(app);
#endif
  if (refuse_unknown_subcommand(app, argc, argv)) return exit_status;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError&) {
    refuse_unknown_option(app);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // help and version
    std::string what = error.what();
    bool number = what.find("onvert") != std::string::npos || what.find("not in range") != std::string::npos;
    const char* hint = number ? "numbers are plain, such as 4096 or 15e12" : "run with --help for more";
    report_error(tessera::invalid("{}; {}", what, hint));
  }
  return exit_status;
}
