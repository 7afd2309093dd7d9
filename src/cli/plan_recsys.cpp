// tessera plan recsys: how many embedding servers, workers and trainers, and how fast.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/plan_commands.h"
#include "cli/result_output.h"
#include "core/file.h"
#include "plan/recommenders.h"
#include "plan/recsys/page.h"
#include "plan/recsys/search.h"

namespace tessera::cli {
namespace {

namespace recsys = plan::recsys;

struct RecsysOptions {
  std::string model, cluster, engine = "tessera", layout, objective = "throughput", optimizer = "adagrad", json,
                              html;
  double gpus = 0, batch = 0, staleness = 16, samples = 0, samples_per_s = 0, zipf = 1.05, replicas = 1,
         row_bits = 32;
  int64_t top = 10;
};

Result<double> state_bytes(const std::string& optimizer, double dim) {
  if (optimizer == "adagrad") return 4 * dim;
  if (optimizer == "rowwise-adagrad") return 4.0;
  if (optimizer == "adam") return 8 * dim;
  if (optimizer == "sgd") return 0.0;
  return invalid("--optimizer '{}': expected adagrad, rowwise-adagrad, adam or sgd", optimizer);
}

Result<recsys::Request> make_request(const RecsysOptions& options) {
  recsys::Request request;
  TESSERA_ASSIGN_OR_RETURN(request.work.model, plan::find_recommender(options.model));
  TESSERA_ASSIGN_OR_RETURN(request.pools, recsys::load_pools(options.cluster, options.gpus));
  TESSERA_ASSIGN_OR_RETURN(request.engine, recsys::engine(options.engine));
  TESSERA_ASSIGN_OR_RETURN(request.objective, recsys::parse_objective(options.objective));
  TESSERA_ASSIGN_OR_RETURN(
      request.work.state_bytes_per_row,
      state_bytes(options.optimizer, static_cast<double>(request.work.model.tables.front().dim)));
  request.work.zipf = options.zipf, request.work.samples = options.samples;
  request.work.replicas = options.replicas, request.work.element_bytes = options.row_bits / 8;
  request.samples_per_s = options.samples_per_s, request.max_staleness = options.staleness;
  request.batch = options.batch, request.top = options.top;
  if (options.layout.empty()) return request;
  TESSERA_ASSIGN_OR_RETURN(request.layout, recsys::parse_layout(options.layout));
  return request;
}

Status run(const RecsysOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(recsys::Request request, make_request(options));
  TESSERA_ASSIGN_OR_RETURN(recsys::Outcome outcome, recsys::search(request));
  std::fputs(recsys::table(request, outcome).c_str(), text_output(options.json));
  if (outcome.ranked.empty()) exit_status = 1;
  if (!options.html.empty())
    TESSERA_RETURN_IF_ERROR(write_file_atomically(options.html, recsys::recsys_page(request, outcome)));
  return options.json.empty() ? Status() : write_json(options.json, recsys::to_json(request, outcome));
}

void bind(CLI::App& command, RecsysOptions& o) {
  command.add_option("--model", o.model, "dlrm, dcnv2, persia-100t, or a TOML file of the same form")
      ->required();
  command.add_option("--cluster", o.cluster, "persia-gcp, a GPU cluster, or a TOML file with [[pool]]")
      ->required();
  command.add_option("--gpus,-n", o.gpus, "Trainer devices at most (default: those of the cluster; one host)")
      ->check(positive_number());
  command.add_option(
      "--layout", o.layout,
      "Only this one: servers=,workers=,trainers=,batch=,staleness=,wire=,cache=,placement=,...");
  command.add_option("--engine", o.engine, "What the software costs: tessera or persia")->capture_default_str();
  command.add_option("--objective", o.objective, "throughput, cost or energy")->capture_default_str();
  command.add_option("--samples-per-s", o.samples_per_s, "At least this rate")->check(non_negative_number());
  command
      .add_option("--samples", o.samples, "Of the run: only rows that it touches exist (default: every row)")
      ->check(non_negative_number());
  command.add_option("--batch", o.batch, "Samples of a trainer's step (default: searched)")
      ->check(CLI::Range(1, 65536));
  command.add_option("--staleness", o.staleness, "Batches in flight per trainer at most; 1: synchronous")
      ->capture_default_str();
  command.add_option("--zipf", o.zipf, "Exponent of the popularity of ids; 0: all alike")
      ->check(CLI::Range(0.0, 4.0))
      ->capture_default_str();
  command.add_option("--optimizer", o.optimizer, "adagrad, rowwise-adagrad, adam or sgd")
      ->capture_default_str();
  command.add_option("--row-bits", o.row_bits, "Of a value of a row: 32, 16 or 8")
      ->check(CLI::IsMember({32, 16, 8}));
  command.add_option("--replicas", o.replicas, "Copies of every row")->capture_default_str();
  command.add_option("--top", o.top, "Layouts to show")->check(positive_number())->capture_default_str();
  command.add_option("--json", o.json, "Write the result as JSON; - for standard output");
  command.add_option("--html", o.html, "Write one page with pictures that opens offline");
}

}  // namespace

void add_plan_recsys(CLI::App& plan_command) {
  auto options = std::make_shared<RecsysOptions>();
  CLI::App* command = plan_command.add_subcommand("recsys", "Rank the layouts of a recommender's training");
  bind(*command, *options);
  command->footer(
      "Examples:\n"
      "  tessera plan recsys --model dlrm --cluster h100 --gpus 8\n"
      "  tessera plan recsys --model dlrm --cluster h100 --gpus 8 --html dlrm.html\n"
      "  tessera plan recsys --model persia-100t --cluster persia-gcp --engine persia --samples 1e10\n"
      "  tessera plan recsys --model dcnv2 --cluster a100-80g --gpus 16 --samples-per-s 1e6 --objective cost");
  command->callback([options] {
    if (Status status = run(*options); !status) report_error(status.error());
  });
}

}  // namespace tessera::cli
