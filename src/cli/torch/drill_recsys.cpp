// tessera drill recsys: does training a recommender survive its roles?
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "cli/commands.h"
#include "cli/drill_config.h"
#include "cli/torch/drill_report.h"
#include "cli/torch/recsys_launch.h"
#include "core/file.h"
#include "recsys_roles/drill.h"

namespace tessera::cli {
namespace {

struct Arguments {
  std::string json, folder;
  std::vector<std::string> faults;
};

constexpr int64_t kBatch = 32, kParts = 2, kStepsOfEpoch = 200, kEpochs = 10, kStrikeAt = 300;

std::vector<std::string> drill_settings() {
  return {"train.deterministic=true",
          "train.staleness=3",
          "train.servers=2",
          "train.trainers=2",
          "train.threads=1",
          "embedding.dim=8",
          "model.bottom=16,8",
          "model.top=32,16",
          "data.slots=40,5000,300,12",
          "data.numbers=4",
          "data.test_rows=1000",
          fmt::format("train.batch={}", kBatch),
          fmt::format("train.parts={}", kParts),
          fmt::format("train.epochs={}", kEpochs),
          fmt::format("data.train_rows={}", kBatch * kParts * kStepsOfEpoch)};
}

Status run_drill_recsys(const Arguments& arguments) {
  DrillFolder folder(arguments.folder);
  const std::filesystem::path config = folder.path / "drill.toml";
  TESSERA_RETURN_IF_ERROR(write_file_atomically(config, kRecsysDrillConfig));
  recsys_roles::DrillOptions options;
  options.folder = folder.path;
  options.faults = arguments.faults;
  options.settings = drill_settings();
  options.strike_at = kStrikeAt;
  options.steps = kStepsOfEpoch * kEpochs;
  options.run = [&](const std::vector<std::string>& settings,
                    const std::filesystem::path& result) -> Result<recsys_roles::DrillOptions::Run> {
    RecsysLaunch launch;
    launch.command = {"recsys", "train", "--config", config.string(), "--hash"};
    if (!result.empty()) launch.command.insert(launch.command.end(), {"--json", result.string()});
    launch.command.insert(launch.command.end(), settings.begin(), settings.end());
    TESSERA_ASSIGN_OR_RETURN(auto job, recsys_launch_options(launch));
    return recsys_roles::DrillOptions::Run{job.run, job.command};
  };
  options.on_progress = [](const std::string& line) { std::fprintf(stderr, "drill: %s\n", line.c_str()); };
  at::set_num_threads(1);  // as the roles have it
  TESSERA_ASSIGN_OR_RETURN(auto report, recsys_roles::run_drill(options));
  return print_drill(report, arguments.json);
}

}  // namespace

void add_drill_recsys(CLI::App& drill) {
  CLI::App* command =
      drill.add_subcommand("recsys", "Kill and stop the roles of a recommender's training, and compare bits");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--json", arguments->json, "Write the rows as JSON; - for standard output");
  command->add_option("--fault", arguments->faults, "Only these rows")
      ->allow_extra_args(false)
      ->check(CLI::IsMember(recsys_roles::drill_faults()));
  command->add_option("--folder", arguments->folder, "Keep logs and events here");
  command->footer("Examples:\n  tessera drill recsys\n  tessera drill recsys --fault kill_server --json -");
  command->callback([arguments] {
    if (Status status = run_drill_recsys(*arguments); !status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
