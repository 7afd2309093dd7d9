#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <span>

#include "cli/commands.h"
#include "cli/recsys_parent.h"
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
bool refuse_unknown_subcommand(const CLI::App& app, std::span<char*> words) {
  const CLI::App* command = &app;
  for (const char* word : words) {
    auto names = subcommand_names(*command);
    if (names.empty() || word[0] == '-') return false;
    if (std::find(names.begin(), names.end(), word) == names.end()) {
      report_error(invalid("unknown subcommand '{}'{}\n       known: {}", word, did_you_mean(word, names),
                           fmt::join(names, ", ")));
      return true;
    }
    command = command->get_subcommand(word);
  }
  return false;
}

// The subcommand that was asked for, and its whole name: "plan train".
struct Asked {
  const CLI::App* command;
  std::string name;
};
Asked asked(const CLI::App& app) {
  Asked found{&app, ""};
  while (!found.command->get_subcommands().empty()) {
    found.command = found.command->get_subcommands().front();
    found.name += (found.name.empty() ? "" : " ") + found.command->get_name();
  }
  return found;
}

// An option that no one knows: the nearest one of the subcommand it was given to.
void refuse_unknown_option(const CLI::App& app) {
  auto [command, name_of_command] = asked(app);
  std::vector<std::string> names, unknown = app.remaining(true);
  for (const CLI::Option* option : command->get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  std::string first = unknown.empty() ? "" : unknown.front();
  for (const std::string& word : unknown)
    if (word.starts_with("--")) first = word;
  report_error(invalid("{}: unexpected '{}'{}\n       see: tessera {} --help", name_of_command, first,
                       did_you_mean(first, names), name_of_command));
}

void refuse_value(const CLI::App& app, const CLI::ParseError& error) {
  std::string what = error.what(), name = asked(app).name;
  bool number = dynamic_cast<const CLI::ConversionError*>(&error) != nullptr ||
                what.find("not in range") != std::string::npos;
  const char* hint = number ? "; numbers are plain, such as 4096 or 15e12" : "";
  report_error(invalid("{}{}{}{}; see tessera {}{}--help", name, name.empty() ? "" : ": ", what, hint, name,
                       name.empty() ? "" : " "));
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
  add_embed(app);
  add_generate(app);
  add_serve(app);
  add_recsys_train(app);
  add_recsys_serve(app);
  add_recsys_reshard(app);
#endif
  if (refuse_unknown_subcommand(app, {argv + 1, argv + argc})) return exit_status;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError&) {
    refuse_unknown_option(app);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // help and version
    refuse_value(app, error);
  }
  return exit_status;
}
