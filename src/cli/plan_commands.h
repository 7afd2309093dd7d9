// The subcommands of `tessera plan`, each in a file of its own.
#pragma once

namespace CLI {
class App;
}

namespace tessera::cli {

void add_plan_validate(CLI::App& plan_command);

}  // namespace tessera::cli
