// tessera plan serve: ranks deployments of an inference engine.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/plan_commands.h"
#include "cli/result_output.h"
#include "core/file.h"
#include "plan/catalogue.h"
#include "plan/emit/emit.h"
#include "plan/serving/search_page.h"
#include "plan/serving/search_report.h"
#include "plan/serving/validation_report.h"

namespace tessera::cli {
namespace {

namespace serving = plan::serving;

struct ServeOptions {
  std::string model, cluster = "h100", engine = "vllm", version, layout, trace, json, html, emit;
  std::string precision, kv_precision;
  int64_t gpus = 8, top = 10, draft_tokens = 0;
  double isl = 1024, osl = 1024, concurrency = 0, rate = 0, ttft_ms = 0, tpot_ms = 0, cached_prefix = 0,
         acceptance = 0.75;
};

Result<serving::Formats> formats_of(const ServeOptions& options, const Blueprint& model,
                                    const serving::Engine& engine) {
  bool as_published = options.precision.empty();
  bool narrow = model.ffn_format != WeightFormat::bf16 || model.expert_format != WeightFormat::bf16;
  serving::Formats formats{
      .attention = model.attention_format, .ffn = model.ffn_format, .experts = model.expert_format};
  if (!as_published) {
    TESSERA_ASSIGN_OR_RETURN(WeightFormat format, serving::parse_weight_format(options.precision));
    formats = serving::formats_for(model, format, format, 2);
    narrow = format != WeightFormat::bf16 && format != WeightFormat::float32;
  }
  formats.kv_bytes = narrow ? engine.kv_bytes : 2;
  if (options.kv_precision.empty()) return formats;
  TESSERA_ASSIGN_OR_RETURN(WeightFormat cache, serving::parse_weight_format(options.kv_precision));
  formats.kv_bytes = bytes_per_weight(cache);
  return formats;
}

Status read_traffic(const ServeOptions& options, serving::SearchRequest& request) {
  int loads = (options.concurrency > 0) + (options.rate > 0) + !options.trace.empty();
  if (loads > 1) return invalid("give one of --concurrency, --rate and --trace, not {}", loads);
  if (options.cached_prefix >= options.isl)
    return invalid("--cached-prefix {:.0f} must be below the {:.0f} tokens of a prompt", options.cached_prefix,
                   options.isl);
  request.traffic = {.input_tokens = options.isl,
                     .output_tokens = options.osl,
                     .cached_prefix = options.cached_prefix,
                     .concurrency = options.concurrency,
                     .rate = options.rate};
  if (options.rate > 0) request.traffic.arrival = serving::Arrival::open;
  if (options.trace.empty()) return {};
  TESSERA_ASSIGN_OR_RETURN(request.trace, serving::read_trace(options.trace));
  double prompts = 0, answers = 0, count = static_cast<double>(request.trace.size());
  for (const serving::Request& r : request.trace)
    prompts += static_cast<double>(r.prompt), answers += static_cast<double>(r.answer);
  request.traffic.input_tokens = prompts / count;
  request.traffic.output_tokens = answers / count;
  request.traffic.arrival = serving::Arrival::open;
  request.traffic.rate = count / std::max(1e-9, request.trace.back().arrival_s);
  return {};
}

Result<serving::SearchRequest> make_request(const ServeOptions& options) {
  serving::SearchRequest request;
  TESSERA_ASSIGN_OR_RETURN(request.model, plan::find_model(options.model));
  TESSERA_ASSIGN_OR_RETURN(request.device, serving::accelerator(options.cluster));
  TESSERA_ASSIGN_OR_RETURN(request.engine,
                           serving::EngineCatalogue::built_in().find(options.engine, options.version));
  TESSERA_ASSIGN_OR_RETURN(request.one_phase_engine,
                           serving::EngineCatalogue::built_in().find(options.engine, "disaggregated"));
  TESSERA_ASSIGN_OR_RETURN(request.formats, formats_of(options, request.model, request.engine));
  request.gpus = options.gpus;
  request.ttft_s = options.ttft_ms / 1000;
  request.tpot_s = options.tpot_ms / 1000;
  request.speculation = {.depth = options.draft_tokens, .acceptance = options.acceptance};
  TESSERA_RETURN_IF_ERROR(read_traffic(options, request));
  if (options.layout.empty()) return request;
  TESSERA_ASSIGN_OR_RETURN(serving::WorkerLayout layout, serving::parse_worker_layout(options.layout));
  request.layout = layout;
  return request;
}

Status run(const ServeOptions& options) {
  TESSERA_RETURN_IF_ERROR(check_emit(options.emit, options.json));
  TESSERA_ASSIGN_OR_RETURN(serving::SearchRequest request, make_request(options));
  TESSERA_ASSIGN_OR_RETURN(serving::SearchOutcome outcome, serving::search(request));
  std::string table = serving::search_table(request, outcome, options.top);
  std::fputs(table.c_str(), options.emit.empty() ? text_output(options.json) : stderr);
  if (outcome.ranked.empty()) exit_status = 1;
  if (!options.emit.empty() && !outcome.ranked.empty()) {
    TESSERA_ASSIGN_OR_RETURN(std::string text,
                             plan::emit_serving(options.emit, request, outcome.ranked.front()));
    print_emitted(text);
  }
  if (!options.html.empty()) {
    std::string page = serving::search_page(request, outcome, options.top);
    TESSERA_RETURN_IF_ERROR(write_file_atomically(options.html, page));
  }
  return write_json(options.json, serving::search_json(request, outcome, options.top));
}

void bind(CLI::App& command, ServeOptions& options) {
  command.add_option("--model", options.model, "Name in the catalogue, or path of a config.json")->required();
  command.add_option("--cluster", options.cluster, "GPU cluster of the catalogue, or path of its TOML file")
      ->capture_default_str();
  command.add_option("--gpus,-n", options.gpus, "Accelerators to use")->capture_default_str();
  command.add_option("--isl", options.isl, "Mean tokens of a prompt")
      ->check(CLI::Range(1.0, 1e8))
      ->capture_default_str();
  command.add_option("--osl", options.osl, "Mean tokens of an answer")
      ->check(CLI::Range(1.0, 1e8))
      ->capture_default_str();
  command
      .add_option("--concurrency", options.concurrency,
                  "Users, each with one request at a time (default: searched)")
      ->check(non_negative_number());
  command.add_option("--rate", options.rate, "Requests per second, arriving at random")
      ->check(non_negative_number());
  command.add_option("--trace", options.trace, "Requests of a trace: Azure CSV or Mooncake JSON lines");
  command.add_option("--ttft-ms", options.ttft_ms, "Mean time to first token at most")
      ->check(non_negative_number());
  command.add_option("--tpot-ms", options.tpot_ms, "Mean time per output token at most")
      ->check(non_negative_number());
  command.add_option("--layout", options.layout, "Only this worker, such as tp=8 or tp=1,dp=8,ep=8");
  command.add_option("--engine", options.engine, "vllm, sglang or trtllm")->capture_default_str();
  command.add_option("--engine-version", options.version, "Version of the engine (default: the newest known)");
  command.add_option("--precision", options.precision,
                     "Weights: bf16, fp8, nvfp4, mxfp4, int4 (default: as published)");
  command.add_option("--kv-precision", options.kv_precision, "Cache: bf16 or fp8 (default: the engine's)");
  command.add_option("--draft-tokens", options.draft_tokens, "Tokens drafted per step (speculation, MTP)");
  command.add_option("--acceptance", options.acceptance, "Share of draft tokens accepted")
      ->capture_default_str();
  command.add_option("--cached-prefix", options.cached_prefix, "Prompt tokens found in the prefix cache");
  command.add_option("--top", options.top, "Deployments to show")->capture_default_str();
  command.add_option("--json", options.json, "Write the result as JSON; - for standard output");
  command.add_option("--emit", options.emit, "Print what runs the best: tessera, vllm, sglang or tensorrt-llm");
  command.add_option("--html", options.html, "Write one page with pictures that opens offline");
}

}  // namespace

Status validate_serving(const std::string& path, const std::string& json, bool summary_only) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(path));
  TESSERA_ASSIGN_OR_RETURN(plan::CsvTable table, plan::parse_csv(text, path));
  TESSERA_ASSIGN_OR_RETURN(std::vector<serving::ServingCase> cases, serving::read_cases(table));
  auto report = serving::validate(cases, serving::caching(plan::find_model),
                                  serving::EngineCatalogue::built_in(), serving::Intervals::built_in());
  std::FILE* out = text_output(json);
  if (!summary_only) std::fputs(serving::validation_rows(report).c_str(), out);
  std::fputs(serving::validation_summary(report).c_str(), out);
  return json.empty() ? Status() : write_json(json, serving::validation_json(report));
}

void add_plan_serve(CLI::App& plan_command) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* command = plan_command.add_subcommand("serve", "Rank the deployments of an inference engine");
  bind(*command, *options);
  command->footer(
      "Examples:\n"
      "  tessera plan serve --model llama-3.1-70b --cluster h200 --gpus 8 --precision fp8 --isl 1024 --osl "
      "1024\n"
      "  tessera plan serve --model deepseek-v3 --cluster gb200 --gpus 72 --precision nvfp4 --isl 8192 --osl "
      "1024 \\\n"
      "                     --ttft-ms 2000 --tpot-ms 20 --json -\n"
      "  tessera plan serve --model llama-3.1-8b --cluster h100 --gpus 1 --layout tp=1 --rate 8\n"
      "  tessera plan serve --model llama-3.1-70b --cluster h100 --gpus 8 --precision fp8 --emit vllm");
  command->callback([options] {
    if (Status status = run(*options); !status) report_error(status.error());
  });
}

}  // namespace tessera::cli
