// tessera verify: do two layouts of equal work compute the same?
#include "train/verify.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "core/file.h"
#include "core/progress.h"
#include "train/run_config.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

struct Arguments {
  std::string config, layout = "dp=1", against, json;
  std::vector<std::string> overrides;
};

json to_json(const train::VerifyResult& result, const train::RunConfig& run, const Layout& layout,
             const Layout& against) {
  json out = {{"equal", result.equal},
              {"mode", to_string(run.work.numerics)},
              {"precision", to_string(run.work.precision)},
              {"layout", to_string(layout)},
              {"against", to_string(against)},
              {"hash", result.hash},
              {"hash_against", result.hash_against},
              {"first_difference", nullptr},
              {"bytes_sent", result.bytes_sent},
              {"gradient_bytes_peak", result.gradient_bytes_peak},
              {"losses", result.losses},
              {"losses_against", result.losses_against}};
  if (result.first_difference)
    out["first_difference"] = {{"step", result.first_difference->step},
                               {"tensor", result.first_difference->tensor},
                               {"operation", result.first_difference->operation}};
  if (run.work.numerics == Numerics::exact) return out;
  out["bound"] = result.bound;
  for (const auto& step : result.steps)
    out["steps"].push_back({{"step", step.step},
                            {"loss", step.loss},
                            {"loss_difference", step.loss_difference},
                            {"gradient_difference", step.gradient_difference},
                            {"worst_tensor", step.worst_tensor}});
  return out;
}

void print_fast(std::FILE* out, const train::VerifyResult& result) {
  std::fprintf(out, "step        loss   loss difference   gradient difference   tensor\n");
  for (const auto& step : result.steps)
    std::fprintf(out, "%4ld  %10.6f  %16.3e  %20.3e   %s\n", static_cast<long>(step.step), step.loss,
                 step.loss_difference, step.gradient_difference, step.worst_tensor.c_str());
  std::fprintf(out, "bound from precision, length of sums and depth: %.3e relative\n%s\n", result.bound,
               result.equal ? "equal within the bound" : "NOT within the bound");
}

void print_exact(std::FILE* out, const train::VerifyResult& result, int64_t steps) {
  if (result.equal) {
    std::fprintf(out, "bitwise equal after %ld steps: all weights have hash %s\n", static_cast<long>(steps),
                 result.hash.c_str());
    return;
  }
  if (!result.first_difference) {
    std::fprintf(out, "NOT equal: weights have hash %s and %s\n", result.hash.c_str(),
                 result.hash_against.c_str());
    return;
  }
  const train::Difference& difference = *result.first_difference;
  std::fprintf(out, "NOT equal: first difference at step %ld, %s of %s (losses %.9g and %.9g)\n",
               static_cast<long>(difference.step), difference.operation.c_str(),
               difference.tensor.empty() ? "the batch" : difference.tensor.c_str(),
               result.losses[static_cast<size_t>(difference.step)],
               result.losses_against[static_cast<size_t>(difference.step)]);
}

Status run_verify(const Arguments& arguments) {
  std::vector<std::string> overrides = {"work.numerics=exact"};
  overrides.insert(overrides.end(), arguments.overrides.begin(), arguments.overrides.end());
  TESSERA_ASSIGN_OR_RETURN(train::RunConfig run, train::load_run_config(arguments.config, overrides));
  TESSERA_ASSIGN_OR_RETURN(Layout layout, parse_layout(arguments.layout));
  TESSERA_ASSIGN_OR_RETURN(Layout against, parse_layout(arguments.against));
  for (const Layout& one : {layout, against}) TESSERA_RETURN_IF_ERROR(validate(run.model, run.work, one));
  TESSERA_ASSIGN_OR_RETURN(train::Sources sources, train::open_sources(run));
  train::TrainerOptions options{
      .model = run.model, .work = run.work, .optimizer = run.optimizer, .seed = run.seed};
  std::FILE* out = arguments.json == "-" ? stderr : stdout;
  std::fprintf(out, "%s numerics, %s: %s against %s, %ld steps\n", to_string(run.work.numerics),
               to_string(run.work.precision), to_string(layout).c_str(), to_string(against).c_str(),
               static_cast<long>(run.steps));
  std::optional<Progress> progress;
  auto count = [&](int64_t done, int64_t total) {
    if (!progress) progress.emplace(Progress::Options{.label = "verify", .unit = "steps", .total = total});
    progress->update(done);
  };
  TESSERA_ASSIGN_OR_RETURN(train::VerifyResult result,
                           train::verify(options, layout, against, run.steps, *sources.train, count));
  if (progress) progress->finish();
  if (run.work.numerics == Numerics::exact)
    print_exact(out, result, run.steps);
  else
    print_fast(out, result);
  exit_status = result.equal ? 0 : 1;
  if (arguments.json.empty()) return {};
  std::string text = to_json(result, run, layout, against).dump(2) + "\n";
  if (arguments.json == "-") return std::fputs(text.c_str(), stdout), Status();
  return write_file_atomically(arguments.json, text);
}

}  // namespace

void add_verify(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("verify", "Check that two layouts of equal work compute the same");
  command->add_option("--config", arguments->config, "TOML file of the run")->required();
  command->add_option("--layout", arguments->layout, "Reference layout")->capture_default_str();
  command->add_option("--against", arguments->against, "Layout to compare with it")->required();
  command->add_option("--json", arguments->json,
                      "Write the result as JSON to this file, - for standard output");
  command->add_option("overrides", arguments->overrides, "key=value of the configuration");
  command->footer(
      "Examples:\n"
      "  tessera verify --config examples/dense-small.toml --against tp=2,pp=2\n"
      "  tessera verify --config examples/moe-small.toml --against fsdp=4,ep=2 precision=bf16\n"
      "  tessera verify --config examples/dense-small.toml --against tp=4 numerics=fast");
  command->callback([arguments] {
    Status status = run_verify(*arguments);
    if (!status.ok()) report_error(status.error());
  });
}

}  // namespace tessera::cli
