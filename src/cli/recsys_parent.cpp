#include "cli/recsys_parent.h"

#include <CLI/CLI.hpp>

namespace tessera::cli {

CLI::App& recsys_parent(CLI::App& app) {
  for (CLI::App* present :
       app.get_subcommands([](const CLI::App* command) { return command->get_name() == "recsys"; }))
    return *present;
  CLI::App* parent = app.add_subcommand("recsys", "Recommenders: the embedding store and training on it");
  parent->require_subcommand(1);
  return *parent;
}

}  // namespace tessera::cli
