// tessera plan serve: ranks deployments of an inference engine.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
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
#include "plan/serving/host.h"
#include "plan/serving/search_page.h"
#include "plan/serving/search_report.h"
#include "plan/serving/validation_report.h"

namespace tessera::cli {
namespace {

namespace serving = plan::serving;

struct ServeOptions {
  std::string model, cluster = "h100", engine = "vllm", version, layout, trace, json, html, emit, site;
  std::string precision, attention_precision, kv_precision, objective = "rate", percentile;
  int64_t gpus = 8, top = 10, draft_tokens = -1, prefix_cache = 0, chunk = 0;
  double isl = 1024, osl = 1024, concurrency = 0, rate = 0, ttft_ms = 0, tpot_ms = 0, min_user = 0, min_gpu = 0,
         cached_prefix = 0, acceptance = 0.75;
  std::vector<std::string> given;  // options on the command line
  bool has(const std::string& option) const {
    return std::find(given.begin(), given.end(), option) != given.end();
  }
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
  if (!options.attention_precision.empty()) {
    TESSERA_ASSIGN_OR_RETURN(formats.attention, serving::parse_weight_format(options.attention_precision));
  }
  formats.kv_bytes = narrow || engine.name == "tessera" ? engine.kv_bytes : 2;
  if (options.kv_precision.empty()) return formats;
  TESSERA_ASSIGN_OR_RETURN(WeightFormat cache, serving::parse_weight_format(options.kv_precision));
  formats.kv_bytes = bytes_per_weight(cache);
  return formats;
}

// What one option says and another takes back.
Status check_together(const ServeOptions& options) {
  int loads = options.has("--concurrency") + options.has("--rate") + options.has("--trace");
  if (loads > 1) return invalid("give one of --concurrency, --rate and --trace, not {}", loads);
  for (const char* length : {"--isl", "--osl", "--cached-prefix"})
    if (options.has("--trace") && options.has(length))
      return invalid("{} contradicts --trace, whose requests have lengths of their own", length);
  if (options.prefix_cache > 0 && !options.has("--trace"))
    return invalid(
        "--prefix-cache needs --trace: only a trace says which prompts begin alike; see --cached-prefix");
  if (options.has("--acceptance") && options.draft_tokens == 0)
    return invalid("--acceptance says how many drafts are right, but --draft-tokens is 0");
  return {};
}

Status read_traffic(const ServeOptions& options, serving::SearchRequest& request) {
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
  TESSERA_ASSIGN_OR_RETURN(request.trace, serving::read_trace(options.trace, options.prefix_cache));
  double prompts = 0, answers = 0, cached = 0, count = static_cast<double>(request.trace.size());
  for (const serving::Request& r : request.trace)
    prompts += static_cast<double>(r.prompt), answers += static_cast<double>(r.answer),
        cached += static_cast<double>(r.cached);
  request.traffic.input_tokens = prompts / count;
  request.traffic.output_tokens = answers / count;
  request.traffic.cached_prefix = cached / count;
  request.traffic.arrival = serving::Arrival::open;
  request.traffic.rate = count / std::max(1e-9, request.trace.back().arrival_s);
  return {};
}

serving::Limits limits_of(const ServeOptions& options) {
  serving::Limits limits{
      .ttft_s = options.ttft_ms / 1000, .tpot_s = options.tpot_ms / 1000, .least_rate = options.min_gpu};
  if (options.min_user <= 0) return limits;
  double tpot = 1 / options.min_user;
  limits.tpot_s = limits.tpot_s > 0 ? std::min(limits.tpot_s, tpot) : tpot;
  return limits;
}

// A version that no constants are known for takes those of the nearest; a word that is no version is refused.
Result<serving::Engine> engine_of(const ServeOptions& options) {
  const serving::EngineCatalogue& known = serving::EngineCatalogue::built_in();
  TESSERA_ASSIGN_OR_RETURN(serving::Engine engine, known.find(options.engine, options.version));
  std::vector<std::string> versions;
  bool stands = options.version.empty() || std::isdigit(static_cast<unsigned char>(options.version[0]));
  for (const serving::Engine& one : known.entries()) {
    if (one.name != engine.name || one.version.empty()) continue;
    versions.push_back(one.version);
    stands = stands || options.version.starts_with(one.version);
  }
  if (stands) return engine;
  return invalid("version '{}' of {}: expected a number such as 1.2; constants are known for {}",
                 options.version, engine.name, fmt::join(versions, ", "));
}

// A host that `tessera calibrate --serve` timed brings its engine; it is one process.
Status take_timed_host(const ServeOptions& options, serving::SearchRequest& request) {
  for (const char* option : {"--engine", "--engine-version", "--site"})
    if (options.has(option) && !(options.engine == "tessera" && option == std::string("--engine")))
      return invalid("{} does not go with {}, which was timed with the engine of tessera", option,
                     options.cluster);
  if (options.has("--gpus") && options.gpus != 1)
    return invalid("--gpus {}: {} was timed as one process; leave it out", options.gpus, options.cluster);
  TESSERA_ASSIGN_OR_RETURN(serving::ServingHost host, serving::load_serving_host(options.cluster));
  request.device = host.device;
  request.engine = request.one_phase_engine = host.engine;
  request.gpus = 1;
  return {};
}

Status choose_host(const ServeOptions& options, serving::SearchRequest& request) {
  if (serving::is_serving_host(options.cluster)) return take_timed_host(options, request);
  request.gpus = options.gpus;
  TESSERA_ASSIGN_OR_RETURN(request.device, serving::accelerator(options.cluster, options.site));
  TESSERA_ASSIGN_OR_RETURN(request.engine, engine_of(options));
  TESSERA_ASSIGN_OR_RETURN(request.one_phase_engine,
                           serving::EngineCatalogue::built_in().find(options.engine, "disaggregated"));
  return {};
}

Result<serving::SearchRequest> make_request(const ServeOptions& options) {
  serving::SearchRequest request;
  TESSERA_RETURN_IF_ERROR(check_together(options));
  TESSERA_ASSIGN_OR_RETURN(request.aim, serving::parse_aim(options.objective));
  if (!options.percentile.empty()) {
    TESSERA_ASSIGN_OR_RETURN(request.percentile, serving::parse_percentile(options.percentile));
  }
  TESSERA_ASSIGN_OR_RETURN(request.model, plan::find_model(options.model));
  TESSERA_RETURN_IF_ERROR(choose_host(options, request));
  TESSERA_ASSIGN_OR_RETURN(request.formats, formats_of(options, request.model, request.engine));
  for (serving::Engine* engine : {&request.engine, &request.one_phase_engine})
    if (options.chunk > 0) engine->budget_tokens = static_cast<double>(options.chunk);
  request.limits = limits_of(options);
  bool drafts = options.draft_tokens < 0 && !request.model.mtp.empty();
  int64_t usual = drafts ? static_cast<int64_t>(request.engine.draft_tokens) : 0;
  request.speculation = {.depth = options.draft_tokens >= 0 ? options.draft_tokens : usual,
                         .acceptance = options.acceptance};
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
  command
      .add_option("--min-tok-s-user", options.min_user,
                  "Tokens per second of each user at least (1000 / --tpot-ms)")
      ->check(non_negative_number());
  command.add_option("--min-tok-s-gpu", options.min_gpu, "Tokens per second and GPU at least")
      ->check(non_negative_number());
  command.add_option(
      "--percentile", options.percentile,
      "Limits are on mean, p50, p90, p95 or p99 of simulated requests (default: means, closed form)");
  command
      .add_option("--objective", options.objective,
                  "Best is: rate (tokens/s per GPU), user (tokens/s per user), ttft, cost or energy")
      ->capture_default_str();
  command.add_option(
      "--site", options.site,
      "Over the cluster's figures: pue=, grid_kg_per_kwh=, price=, embodied_kg=, lifetime_hours=");
  command.add_option("--layout", options.layout, "Only this worker, such as tp=8 or tp=1,dp=8,ep=8");
  command.add_option("--engine", options.engine, "vllm, sglang or trtllm")->capture_default_str();
  command.add_option("--engine-version", options.version, "Version of the engine (default: the newest known)");
  command.add_option("--precision", options.precision,
                     "Weights: bf16, fp8, nvfp4, mxfp4, int4 (default: as published)");
  command.add_option(
      "--attention-precision", options.attention_precision,
      "Products of attention (default: as --precision; in 4 bits experts alone are, attention stays bf16)");
  command.add_option("--kv-precision", options.kv_precision, "Cache: bf16 or fp8 (default: the engine's)");
  command.add_option("--chunk", options.chunk, "Tokens of one step at most: prompts are cut into chunks")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  command.add_option("--draft-tokens", options.draft_tokens, "Tokens drafted per step (speculation, MTP)")
      ->check(CLI::Range(0, 16));
  command.add_option("--acceptance", options.acceptance, "Share of draft tokens accepted")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command.add_option("--cached-prefix", options.cached_prefix, "Prompt tokens found in the prefix cache")
      ->check(non_negative_number());
  command
      .add_option("--prefix-cache", options.prefix_cache,
                  "Tokens of a cache of prefixes that a trace's prompts are looked up in")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 50));
  command.add_option("--top", options.top, "Deployments to show")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
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
      "  tessera plan serve --model gpt-oss-120b --cluster b200 --gpus 8 --min-tok-s-user 100 --percentile "
      "p95\n"
      "  tessera plan serve --model llama-3.1-8b --cluster h100 --gpus 1 --layout tp=1 --rate 8\n"
      "  tessera plan serve --model llama-3.1-70b --cluster h100 --gpus 8 --precision fp8 --emit vllm");
  command->callback([options, command] {
    for (const CLI::Option* option : command->get_options())
      if (option->count() > 0) options->given.push_back(option->get_name());
    if (Status status = run(*options); !status) report_error(status.error());
  });
}

}  // namespace tessera::cli
