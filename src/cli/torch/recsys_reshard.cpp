// tessera recsys reshard
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/recsys_parent.h"
#include "cli/result_output.h"
#include "core/clock.h"
#include "recsys_roles/reshard.h"

namespace tessera::cli {
namespace {

using recsys_roles::ReshardStatus;

constexpr double kTaken_s = 15;    // for the launcher to take an order
constexpr double kSilent_s = 600;  // of a launcher that took one; a copy of many rows says nothing meanwhile
constexpr double kLook_s = 0.05;

struct Arguments {
  std::string run, json;
  int64_t servers = 0;
};

Result<ReshardStatus> follow(const Arguments& arguments, const std::string& id) {
  const Deadline taken = Deadline::after(kTaken_s);
  Deadline silent = Deadline::after(kSilent_s);
  std::string said;
  for (;;) {
    auto status = recsys_roles::read_status(arguments.run);
    if (status && status->id == id) {
      const bool ends = status->state != "running";
      if (ends) return *status;
      if (status->detail != said) {
        fmt::print(stderr, "reshard: {}\n", said = status->detail);
        silent = Deadline::after(kSilent_s);
      }
      if (silent.passed())
        return make_error(ErrorCode::unavailable,
                          "{}: no news of the move for {:.0f} s; has its launcher died?", arguments.run,
                          kSilent_s);
    } else if (recsys_roles::order_waits(arguments.run) && taken.passed()) {
      recsys_roles::withdraw_order(arguments.run);
      return make_error(ErrorCode::unavailable,
                        "{}: no launcher has taken the order within {:.0f} s; is this the --run-dir of a "
                        "`tessera launch -- recsys train` that is running?",
                        arguments.run, kTaken_s);
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(kLook_s));
  }
}

Status run(const Arguments& arguments) {
  TESSERA_ASSIGN_OR_RETURN(auto order, recsys_roles::leave_order(arguments.run, arguments.servers));
  TESSERA_ASSIGN_OR_RETURN(ReshardStatus status, follow(arguments, order.id));
  if (status.state != "done") return make_error(ErrorCode::aborted, "{}", status.detail);
  fmt::print(text_output(arguments.json), "{}\n", status.detail);
  return write_json(arguments.json, {{"from", status.from},
                                     {"servers", status.servers},
                                     {"rows", status.result.rows},
                                     {"bytes", status.result.bytes},
                                     {"step", status.result.step},
                                     {"hand_over_s", status.result.hand_over_s},
                                     {"total_s", status.result.total_s}});
}

}  // namespace

void add_recsys_reshard(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = recsys_parent(app).add_subcommand(
      "reshard", "Give a training job another number of embedding servers while it runs");
  command->add_option("--run", arguments->run, "The --run-dir of the job's `tessera launch`")->required();
  command->add_option("--servers", arguments->servers, "Servers it is to have")
      ->required()
      ->check(positive_number());
  command->add_option("--json", arguments->json, "Write the result as JSON; - for standard output");
  command->footer(
      "Rows are copied while training goes on, and it waits only for the hand-over at the end. If a server "
      "dies\n"
      "meanwhile, the old number stays until the next try; nothing is lost either way.\n"
      "Examples:\n"
      "  tessera launch --run-dir runs/a -- recsys train --config examples/recsys/synthetic.toml "
      "train.servers=2\n"
      "  tessera recsys reshard --run runs/a --servers 3\n"
      "  tessera launch --join FIRST:29600 --roles server:3 -- recsys train ...   # a host for the next one");
  command->callback([arguments] {
    if (Status status = run(*arguments); !status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
