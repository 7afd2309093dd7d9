// tessera plan train: which layout, how fast, does it fit.
#include "plan/plan.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/plan_commands.h"
#include "cli/plan_gpu.h"
#include "core/file.h"
#include "plan/emit/emit.h"
#include "plan/hardware/gpu_cluster.h"

namespace tessera::cli {
namespace {

struct TrainOptions {
  std::string model, cluster = "cpu", layout, precision = "auto", numerics = "fast", json, html, emit, software;
  std::string schedules;
  std::string failures, site, objective = "time", space = "default";
  double tokens = 0, max_days = 0;
  int64_t gpus = 1, min_gpus = 0, seq = 4096, batch = 0, micro_batch = 0, top = 10, threads = 0;
  int64_t tp_blocks = 0, seq_chunks = 0;
};

// auto: bf16 where the cluster multiplies it faster than float32.
Result<Precision> parse_precision(const std::string& text, const plan::Cluster& cluster) {
  if (text == "auto")
    return cluster.peak_bf16 > 1.2 * cluster.peak_float32 ? Precision::bf16 : Precision::float32;
  if (text == "float32") return Precision::float32;
  if (text == "bf16") return Precision::bf16;
  return invalid("--precision {}: expected auto, float32 or bf16", text);
}
Result<Numerics> parse_numerics(const std::string& text) {
  if (text == "exact") return Numerics::exact;
  if (text == "fast") return Numerics::fast;
  return invalid("--numerics {}: expected exact or fast", text);
}

// Micro-batches worth trying when none is given: powers of two that divide the global batch.
std::vector<int64_t> micro_batches_of(int64_t batch) {
  std::vector<int64_t> sizes;
  for (int64_t size = 1; size <= std::min<int64_t>(batch, 16); size *= 2)
    if (batch % size == 0) sizes.push_back(size);
  return sizes;
}

Result<plan::Request> make_request(const TrainOptions& options) {
  plan::Request request;
  TESSERA_ASSIGN_OR_RETURN(request.model, plan::load_model(options.model));
  TESSERA_ASSIGN_OR_RETURN(request.cluster, plan::load_cluster(options.cluster));
  TESSERA_ASSIGN_OR_RETURN(request.work.precision, parse_precision(options.precision, request.cluster));
  TESSERA_ASSIGN_OR_RETURN(request.work.numerics, parse_numerics(options.numerics));
  request.work.seq = options.seq;
  request.work.global_batch = options.batch;
  request.work.micro_batch = options.micro_batch > 0 ? options.micro_batch : 1;
  if (options.micro_batch == 0) request.micro_batches = micro_batches_of(options.batch);
  request.trainable = request.cluster.shares_cores();
  request.free_blocks = options.tp_blocks == 0 && options.seq_chunks == 0 && !request.trainable;
  if (options.tp_blocks > 0) request.work.tp_blocks = options.tp_blocks;
  if (options.seq_chunks > 0) request.work.seq_chunks = options.seq_chunks;
  request.processes = options.gpus;
  request.threads = options.threads;
  if (!options.layout.empty()) {
    TESSERA_ASSIGN_OR_RETURN(request.layout, parse_layout(options.layout));
  }
  return request;
}

void print_result(const plan::Request& request, const plan::SearchResult& result, int64_t top, FILE* out) {
  if (result.ranked.empty()) {
    std::fprintf(out, "nothing fits %lld x %s:\n", static_cast<long long>(request.processes),
                 request.cluster.name.c_str());
    for (const auto& reason : result.infeasible)
      fmt::print(out, "  {}: needed {:.4g}, available {:.4g} {}\n", reason.constraint, reason.needed,
                 reason.available, reason.unit);
    return;
  }
  fmt::print(out, "{}\n{}", plan::table(request, result, top), plan::details(request, result.ranked.front()));
}

Status run_on_gpus(const TrainOptions& o) {
  return plan_gpu_training({.model = o.model,
                            .cluster = o.cluster,
                            .layout = o.layout,
                            .precision = o.precision,
                            .software = o.software,
                            .schedules = o.schedules,
                            .json = o.json,
                            .html = o.html,
                            .emit = o.emit,
                            .failures = o.failures,
                            .site = o.site,
                            .objective = o.objective,
                            .space = o.space,
                            .gpus = o.gpus,
                            .min_gpus = o.min_gpus,
                            .seq = o.seq,
                            .batch = o.batch,
                            .micro_batch = o.micro_batch,
                            .top = o.top,
                            .tokens = o.tokens,
                            .max_days = o.max_days});
}

Status run(const TrainOptions& options) {
  if (plan::is_gpu_cluster(options.cluster)) return run_on_gpus(options);
  TESSERA_RETURN_IF_ERROR(check_emit(options.emit, options.json));
  if (!options.html.empty())
    return invalid("--html draws plans of GPU clusters; {} is a host: use --json", options.cluster);
  TESSERA_ASSIGN_OR_RETURN(plan::Request request, make_request(options));
  TESSERA_ASSIGN_OR_RETURN(plan::SearchResult result, plan::search(request));
  print_result(request, result, options.top, options.json == "-" || !options.emit.empty() ? stderr : stdout);
  if (!options.emit.empty() && !result.ranked.empty()) {
    TESSERA_ASSIGN_OR_RETURN(std::string text,
                             plan::emit_training(options.emit, request, result.ranked.front()));
    print_emitted(text);
  }
  if (result.ranked.empty()) exit_status = 1;
  if (options.json.empty()) return {};
  std::string text = plan::to_json(request, result, options.top).dump(2) + "\n";
  if (options.json != "-") return write_file_atomically(options.json, text);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return {};
}

void add_plan_train(CLI::App& plan_command) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = plan_command.add_subcommand("train", "Rank the layouts of a training run");
  command->add_option("--model", options->model, "Name in the catalogue, or path of a config.json")->required();
  command->add_option("--cluster", options->cluster, "Name in the catalogue, or path of a TOML file")
      ->capture_default_str();
  command->add_option("--gpus,-n", options->gpus, "Devices, or processes of a CPU host")->required();
  command->add_option("--seq", options->seq, "Tokens of a sequence")->required()->check(CLI::Range(1, 1 << 30));
  command->add_option("--batch,--global-batch", options->batch, "Sequences of one step")->required();
  command->add_option("--micro-batch", options->micro_batch, "Sequences of a micro-batch (default: tried)");
  command->add_option("--layout", options->layout, "Only this layout, such as fsdp=2,tp=2");
  command->add_option("--precision", options->precision, "auto, float32, bf16; on GPUs also fp8, mxfp8, nvfp4")
      ->capture_default_str();
  command->add_option("--numerics", options->numerics, "exact or fast")->capture_default_str();
  command->add_option("--tp-blocks", options->tp_blocks, "Parts of every sum that tp may split");
  command->add_option("--seq-chunks", options->seq_chunks, "Parts of every sum over tokens");
  command->add_option("--threads", options->threads,
                      "Kernel threads of a process (default: cores / processes)");
  command->add_option("--tokens", options->tokens, "Tokens of the whole run: adds hours, cost, energy (GPUs)")
      ->check(CLI::Range(0.0, 1e18));
  command->add_option("--objective", options->objective, "time, cost, energy or rate (tokens/s/GPU); on GPUs")
      ->capture_default_str();
  command
      ->add_option("--space", options->space,
                   "default, or calculon: that planner's space, ranked per sample (GPUs)")
      ->capture_default_str();
  command->add_option("--min-gpus", options->min_gpus, "Try halves of --gpus down to this many (GPUs)")
      ->check(positive_number());
  command->add_option("--max-days", options->max_days, "Limit of the whole run, with --tokens (GPUs)")
      ->check(positive_number());
  command->add_option("--software", options->software, "Software generation (GPUs; default: the newest)");
  command->add_option(
      "--schedules", options->schedules,
      "Pipelines to try (GPUs): 1f1b, gpipe, zb-h1, zb-h2, zb-v, dualpipe joined by commas, or all "
      "(default: those that the software runs)");
  command->add_option(
      "--failures", options->failures,
      "Over the defaults (GPUs): restart_s=, spare_hosts=, checkpoint=storage, interval_s=, ...");
  command->add_option("--site", options->site,
                      "Over the cluster's figures (GPUs): pue=, grid_kg_per_kwh=, price=");
  command->add_option("--top", options->top, "Layouts to show")
      ->check(positive_number())
      ->capture_default_str();
  command->add_option("--json", options->json, "Write the result as JSON; - for standard output");
  command->add_option("--html", options->html, "Write one page with pictures that opens offline (GPUs)");
  command->add_option("--emit", options->emit,
                      "Print what runs the best layout: tessera, megatron, torchtitan or deepspeed");
  command->footer(
      "Examples:\n"
      "  tessera plan train --model llama-3.1-70b --cluster h100 --gpus 64 --seq 8192 --batch 128\n"
      "  tessera plan train --model llama-3.1-405b --cluster h100 --gpus 16384 --seq 8192 --batch 2048 \\\n"
      "                     --tokens 15.6e12 --html plan.html\n"
      "  tessera plan train --model llama-3.1-70b --cluster h100 --gpus 4096 --seq 8192 --batch 1024 \\\n"
      "                     --tokens 1e12 --objective cost --min-gpus 256 --max-days 30\n"
      "  tessera plan train --model deepseek-v3 --cluster h800 --gpus 2048 --seq 4096 --batch 15360 \\\n"
      "                     --precision fp8_block --schedules all\n"
      "  tessera plan train --model config.json --cluster here.toml --gpus 4 --seq 256 --batch 16\n"
      "  tessera plan train --model qwen3-30b-a3b --cluster h200 --gpus 16 --seq 4096 --batch 512 \\\n"
      "                     --layout fsdp=16,ep=8 --micro-batch 2\n"
      "  tessera plan train --model llama-3.1-8b --cluster h100 --gpus 8 --seq 8192 --batch 64 --emit "
      "torchtitan");
  command->callback([options] {
    if (Status status = run(*options); !status) report_error(status.error());
  });
}

// GPU clusters hide the first descriptions of the same hardware in the CPU planner's form.
std::vector<std::string> all_clusters() {
  std::vector<std::string> names = plan::gpu_cluster_names();
  for (const std::string& name : plan::cluster_names())
    if (!plan::is_gpu_cluster(name)) names.push_back(name);
  return names;
}

}  // namespace

void add_plan(CLI::App& app) {
  CLI::App* command = app.add_subcommand("plan", "Predict before renting: layouts, time, memory");
  command->require_subcommand(1);
  command->footer(fmt::format("Models: {}\nClusters: {}", fmt::join(plan::model_names(), ", "),
                              fmt::join(all_clusters(), ", ")));
  add_plan_train(*command);
  add_plan_serve(*command);
  add_plan_validate(*command);
  add_plan_model(*command);
  add_plan_facility(*command);
  add_plan_recsys(*command);
}

}  // namespace tessera::cli
