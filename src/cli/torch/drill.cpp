// tessera drill: does the job survive its workers?
#include "resilience/drill.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "cli/commands.h"
#include "cli/drill_config.h"
#include "cli/torch/drill_report.h"
#include "core/file.h"

namespace tessera::cli {
namespace {

struct Arguments {
  std::string json, folder;
  std::vector<std::string> faults;
};

Status run_drill_command(const Arguments& arguments) {
  DrillFolder folder(arguments.folder);
  resilience::DrillOptions options;
  options.folder = folder.path;
  options.faults = arguments.faults;
  std::error_code failure;
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
  return print_drill(report, arguments.json);
}

}  // namespace

DrillFolder::DrillFolder(const std::string& kept)
    : path(kept.empty() ? std::filesystem::temp_directory_path() / fmt::format("tessera-drill-{}", ::getpid())
                        : std::filesystem::path(kept)),
      temporary_(kept.empty()) {
  std::error_code failure;  // whoever writes into it says so
  std::filesystem::create_directories(path, failure);
}

DrillFolder::~DrillFolder() {
  std::error_code failure;
  if (temporary_) std::filesystem::remove_all(path, failure);
}

Status print_drill(const resilience::DrillReport& report, const std::string& json) {
  if (!report.passed()) exit_status = 1;
  std::fputs(resilience::to_table(report).c_str(), json == "-" ? stderr : stdout);
  if (json.empty()) return {};
  std::string text = resilience::to_json(report);
  if (json != "-") return write_file_atomically(json, text);
  std::fputs(text.c_str(), stdout);
  return {};
}

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
      "Examples:\n  tessera drill\n  tessera drill recsys\n  tessera drill --fault kill_worker --folder "
      "/tmp/drill --json -");
  add_drill_recsys(*command);
  command->callback([arguments, command] {
    if (!command->get_subcommands().empty()) return;
    if (Status status = run_drill_command(*arguments); !status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
