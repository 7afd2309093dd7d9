// tessera drill: does the job survive its workers?
#include "resilience/drill.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "cli/commands.h"
#include "cli/drill_config.h"
#include "core/file.h"

namespace tessera::cli {
namespace {

struct Arguments {
  std::string json, folder;
  std::vector<std::string> faults;
};

// A folder of its own in the temporary directory, removed at the end.
class Scratch {
 public:
  Scratch() : path(std::filesystem::temp_directory_path() / fmt::format("tessera-drill-{}", ::getpid())) {}
  ~Scratch() {
    std::error_code failure;
    std::filesystem::remove_all(path, failure);
  }
  std::filesystem::path path;
};

Status print(const resilience::DrillReport& report, const std::string& json) {
  std::fputs(resilience::to_table(report).c_str(), json == "-" ? stderr : stdout);
  if (json.empty()) return {};
  std::string text = resilience::to_json(report);
  if (json != "-") return write_file_atomically(json, text);
  std::fputs(text.c_str(), stdout);
  return {};
}

Status run_drill_command(const Arguments& arguments) {
  Scratch scratch;
  resilience::DrillOptions options;
  options.folder = arguments.folder.empty() ? scratch.path : std::filesystem::path(arguments.folder);
  options.faults = arguments.faults;
  std::error_code failure;
  std::filesystem::create_directories(options.folder, failure);
  std::filesystem::path config = options.folder / "drill.toml";
  TESSERA_RETURN_IF_ERROR(write_file_atomically(config, kDrillConfig));
  std::string program = std::filesystem::read_symlink("/proc/self/exe", failure).string();
  options.command = [&](const std::vector<std::string>& settings) {
    std::vector<std::string> command = {program, "train", "--config", config.string()};
    command.insert(command.end(), settings.begin(), settings.end());
    return command;
  };
  options.on_progress = [](const std::string& line) { std::fprintf(stderr, "drill: %s\n", line.c_str()); };
  TESSERA_ASSIGN_OR_RETURN(auto report, resilience::run_drill(options));
  if (!report.passed()) exit_status = 1;
  return print(report, arguments.json);
}

}  // namespace

void add_drill(CLI::App& app) {
  auto* command =
      app.add_subcommand("drill", "Inject faults into a small job and check that it recovers with equal bits");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--json", arguments->json, "Write the rows as JSON; - for standard output");
  command->add_option("--fault", arguments->faults, "Only these rows")
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"kill_worker", "kill_all", "stop_worker", "no_spare", "kill_during_save"}));
  command->add_option("--folder", arguments->folder, "Keep logs, events and checkpoints here");
  command->footer(
      "Examples:\n  tessera drill\n  tessera drill --fault kill_worker --folder /tmp/drill --json -");
  command->callback([arguments] {
    if (Status status = run_drill_command(*arguments); !status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
