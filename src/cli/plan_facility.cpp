// tessera plan facility: what a power budget can hold, cost and emit.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/plan_commands.h"
#include "cli/result_output.h"
#include "plan/assignments.h"
#include "plan/facility.h"

namespace tessera::cli {
namespace {

struct FacilityOptions {
  std::string cluster, power, site, failures, json;
};

Status run(const FacilityOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(
      double watts,
      plan::parse_with_unit("--power", options.power, {{"GW", 1e9}, {"MW", 1e6}, {"kW", 1e3}, {"W", 1}}));
  TESSERA_ASSIGN_OR_RETURN(plan::GpuCluster cluster, plan::load_gpu_cluster(options.cluster));
  TESSERA_ASSIGN_OR_RETURN(cluster, plan::at_site(std::move(cluster), options.site));
  TESSERA_ASSIGN_OR_RETURN(plan::FailurePolicy policy, plan::parse_failure_policy(options.failures));
  TESSERA_ASSIGN_OR_RETURN(plan::Facility site, plan::facility(cluster, watts, policy));
  std::fputs(plan::facility_text(cluster, site).c_str(), text_output(options.json));
  return write_json(options.json, plan::facility_json(cluster, site));
}

}  // namespace

void add_plan_facility(CLI::App& plan_command) {
  auto options = std::make_shared<FacilityOptions>();
  CLI::App* command = plan_command.add_subcommand("facility", "What a power budget can hold, cost and emit");
  command->add_option("--cluster", options->cluster, "GPU cluster of the catalogue, or path of its TOML file")
      ->required();
  command->add_option("--power", options->power, "At the meter, such as 5GW or 120kW")->required();
  command->add_option("--site", options->site,
                      "Over the cluster's figures: pue=, grid_kg_per_kwh=, price=, ...");
  command->add_option("--failures", options->failures, "restart_s=, spare_hosts=, checkpoint=storage, ...");
  command->add_option("--json", options->json, "Write the result as JSON; - for standard output");
  command->footer(
      "Examples:\n"
      "  tessera plan facility --cluster gb200-nvl72 --power 5GW\n"
      "  tessera plan facility --cluster h100 --power 20MW --site pue=1.09,grid_kg_per_kwh=0.05 --json -");
  command->callback([options] {
    if (Status status = run(*options); !status) report_error(status.error());
  });
}

}  // namespace tessera::cli
