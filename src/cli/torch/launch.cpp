// tessera launch: starts and supervises the workers of a job.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/torch/recsys_launch.h"
#include "cli/torch/train_command.h"
#include "resilience/fault.h"
#include "resilience/launcher.h"

namespace tessera::cli {
namespace {

using resilience::Event;
using resilience::LaunchOptions;
using resilience::OutputLine;

struct Arguments {
  int64_t workers = 0, spares = 0, max_restarts = 3;
  std::string run_dir;
  RecsysLaunch recsys;  // its own options
  bool forget = false;
  std::vector<std::string> faults, command;
};

resilience::StopRequest stop_request;

void on_signal(int number) {
  stop_request.signal = number;
  ++stop_request.count;
}

// Output of rank 0 stays as it is, so that `launch -- train --json -` can be read by a program.
void print_line(const OutputLine& line, int64_t rank) {
  std::FILE* out = line.error ? stderr : stdout;
  if (rank == 0 && !line.error)
    std::fprintf(out, "%s\n", line.text.c_str());
  else if (rank >= 0)
    std::fprintf(out, "[%ld] %s\n", static_cast<long>(rank), line.text.c_str());
  else
    std::fprintf(out, "[worker %ld] %s\n", static_cast<long>(line.worker), line.text.c_str());
  std::fflush(out);
}

// The error that ends a job is said by every rank and by the launcher: it is printed once. Workers' errors are
// held back until the launcher has said its own.
class WorkerErrors {
 public:
  bool hold(const OutputLine& line, int64_t rank) {
    if (!line.error || !line.text.starts_with(kStart)) return false;
    held_.emplace_back(line, rank);
    return true;
  }
  void print_all_but(const std::string& said) const {
    for (const auto& [line, rank] : held_)
      if (line.text != kStart + said) print_line(line, rank);
  }

 private:
  static constexpr const char* kStart = "error: ";
  std::vector<std::pair<OutputLine, int64_t>> held_;
};

// "2:kill@40:middle": worker 2 and its fault.
Result<std::map<int64_t, std::string>> parse_faults(const std::vector<std::string>& texts) {
  std::map<int64_t, std::string> faults;
  for (const std::string& text : texts) {
    size_t colon = text.find(':');
    if (colon == std::string::npos || text.find_first_not_of("0123456789") != colon)
      return invalid("--fault is WORKER:FAULT such as 2:kill@40:middle, got '{}'", text);
    std::string fault = text.substr(colon + 1);
    TESSERA_ASSIGN_OR_RETURN(auto checked, resilience::parse_fault(fault));
    faults[std::stoll(text.substr(0, colon))] = checked.signal != 0 ? fault : "";
  }
  return faults;
}

Result<LaunchOptions> launch_options(const Arguments& arguments, WorkerErrors& errors) {
  TESSERA_ASSIGN_OR_RETURN(auto faults, parse_faults(arguments.faults));
  LaunchOptions options;
  options.workers = std::max<int64_t>(1, arguments.workers);
  options.spares = arguments.spares;
  options.max_restarts = arguments.max_restarts;
  options.run_dir = arguments.run_dir;
  std::error_code failure;
  options.command = {std::filesystem::read_symlink("/proc/self/exe", failure).string()};
  options.command.insert(options.command.end(), arguments.command.begin(), arguments.command.end());
  options.environment = [faults](int64_t worker) {
    std::map<std::string, std::string> variables;
    if (faults.count(worker)) variables["TESSERA_FAULT"] = faults.at(worker);
    return variables;
  };
  options.on_line = [&errors](const OutputLine& line, int64_t rank) {
    if (!errors.hold(line, rank)) print_line(line, rank);
  };
  options.on_event = [](const Event& event) {
    if (event.event == "failed") return;  // the error says it
    std::fprintf(stderr, "launch: %s\n", resilience::to_line(event).c_str());
  };
  options.stop = &stop_request;
  return options;
}

// Roles of a recommender: those that serve say little, and the first trainer speaks for the job.
Status run_recsys_launch(const Arguments& arguments) {
  RecsysLaunch launch = arguments.recsys;
  launch.trainers = arguments.workers;
  launch.max_restarts = arguments.max_restarts;
  launch.keep_memory = !arguments.forget;
  launch.run_dir = arguments.run_dir;
  launch.faults = arguments.faults;
  launch.command = arguments.command;
  TESSERA_ASSIGN_OR_RETURN(recsys_roles::SupervisorOptions options, recsys_launch_options(launch));
  std::vector<std::pair<std::string, std::string>>
      errors;  // held back until it is known which one ended the job
  options.on_line = [&errors](const OutputLine& line, const recsys_roles::RoleName& role) {
    if (line.error && line.text.starts_with("error: "))
      return void(errors.emplace_back(role.text(), line.text));
    const bool speaks = role.kind == recsys_roles::RoleName::trainer && role.number == 0;
    std::FILE* out = line.error ? stderr : stdout;
    fmt::print(out, "{}{}\n", speaks ? "" : "[" + role.text() + "] ", line.text);
    std::fflush(out);
  };
  options.on_event = [](const Event& event) {
    if (event.event != "failed") std::fprintf(stderr, "launch: %s\n", event.detail.c_str());
  };
  options.stop = &stop_request;
  ::signal(SIGINT, on_signal);
  ::signal(SIGTERM, on_signal);
  auto result = recsys_roles::supervise(options);
  for (const auto& [role, text] : errors)
    if (result || text != "error: " + result.error().message) fmt::print(stderr, "[{}] {}\n", role, text);
  if (!result) return result.error();
  if (result->stopped) exit_status = 128 + stop_request.signal;
  return {};
}

Status run_launch(const Arguments& arguments) {
  const std::vector<std::string>& command = arguments.command;
  if (starts_in_roles(command)) return run_recsys_launch(arguments);
  if (command.front() == "train")
    TESSERA_RETURN_IF_ERROR(
        check_train_command({command.begin() + 1, command.end()}, std::max<int64_t>(1, arguments.workers)));
  WorkerErrors errors;
  TESSERA_ASSIGN_OR_RETURN(LaunchOptions options, launch_options(arguments, errors));
  ::signal(SIGINT, on_signal);
  ::signal(SIGTERM, on_signal);
  auto launched = resilience::launch(options);
  errors.print_all_but(launched ? "" : launched.error().message);
  TESSERA_ASSIGN_OR_RETURN(auto result, std::move(launched));
  if (result.stopped) exit_status = 128 + stop_request.signal;
  return {};
}

}  // namespace

namespace {

void add_recsys_options(CLI::App& command, Arguments& arguments) {
  const char* group = "Recommenders (recsys train)";
  RecsysLaunch& recsys = arguments.recsys;
  command.add_option("--roles", recsys.roles, "Start only these here: loader,worker:0,server:0,trainer:0")
      ->group(group);
  command.add_option("--address", recsys.address, "Where the store and the roles of this host listen")
      ->group(group);
  command.add_option("--port", recsys.port, "Of the store; 0: any free one")->group(group);
  command
      .add_option("--join", recsys.join,
                  "HOST:PORT of the first host's store; the job's token is in TESSERA_TOKEN on all hosts")
      ->group(group);
  command
      .add_option(
          "--replicas", recsys.replicas,
          "Of each embedding server, roles replica:N; put them on another host than server:N, and the death "
          "of a host loses no row")
      ->group(group);
  command
      .add_flag("--forget", arguments.forget,
                "Rows and weights lie in private memory: a role that dies ends the job")
      ->group(group);
}

}  // namespace

void add_launch(CLI::App& app) {
  auto* command = app.add_subcommand("launch", "Start and supervise the workers of a job");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("-n,--workers", arguments->workers, "Ranks of the job; dense trainers of a recommender")
      ->check(positive_number());
  command
      ->add_option("--max-restarts", arguments->max_restarts,
                   "Rounds in which lost workers are replaced; then fewer ranks go on. Of a recommender: times "
                   "that one role is replaced")
      ->check(non_negative_number())
      ->capture_default_str();
  command->add_option("--spares", arguments->spares, "Further workers that wait to take over")
      ->check(non_negative_number());
  command->add_option("--run-dir", arguments->run_dir, "Where events.jsonl and logs of the workers go");
  command
      ->add_option("--fault", arguments->faults,
                   "Inject a fault, for trials: WORKER:kill@STEP:begin|middle|save|together or stop@...; "
                   "ROLE:kill@STEP, stop@ or slow@ for a recommender")
      ->allow_extra_args(false);
  add_recsys_options(*command, *arguments);
  command->add_option("command", arguments->command, "Subcommand of tessera that each worker runs, after --")
      ->required();
  command->footer(
      "Examples:\n"
      "  tessera launch -n 4 -- train --config examples/moe.toml layout=fsdp=2,ep=2,pp=2\n"
      "  tessera launch -n 4 --spares 1 --run-dir runs/a -- train --config my.toml train.run_dir=runs/a\n"
      "  tessera launch -n 2 -- recsys train --config examples/recsys/synthetic.toml train.servers=2\n"
      "  TESSERA_TOKEN=... tessera launch --address HOST --join FIRST:29600 --roles server:1 -- recsys train "
      "...\n"
      "  tessera launch --replicas 1 --roles loader,worker:0,trainer:0,server:0,replica:1 ...   # and "
      "server:1,replica:0 "
      "on another host\n"
      "Ctrl-C or SIGTERM: the workers finish their step, save and end; a second one ends them at once.");
  command->callback([arguments] {
    if (Status status = run_launch(*arguments); !status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
