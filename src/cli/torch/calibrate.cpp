// tessera calibrate: how fast is this machine at what the trainer does?
#include "train/calibrate.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "cli/torch/calibrate_serving.h"
#include "core/clock.h"
#include "core/file.h"

namespace tessera::cli {
namespace {

struct CalibrateOptions {
  std::string out, json;
  double seconds = 20;
  CalibrateServing serving;
};

// One line that moves on a terminal, one line per item elsewhere.
void show_progress(const std::string& what, double done, Clock::time_point start) {
  static std::string last;
  bool terminal = isatty(STDERR_FILENO);
  double elapsed = seconds_since(start), left = done > 0.02 ? elapsed * (1 - done) / done : 0;
  if (terminal)
    fmt::print(stderr, "\r\x1b[K{:3.0f} %  {}  {:.0f} s left", 100 * done, what, left);
  else if (what != last)
    fmt::print(stderr, "{:3.0f} %  {}\n", 100 * done, what);
  last = what;
  if (terminal && done >= 1) fmt::print(stderr, "\r\x1b[K");
}

nlohmann::json to_json(const plan::Cluster& cluster, double seconds) {
  nlohmann::json links = nlohmann::json::array(), provenance = nlohmann::json::object();
  for (const plan::LinkPoint& link : cluster.links)
    links.push_back({{"collective", plan::to_string(link.collective)},
                     {"ranks", link.ranks},
                     {"bytes", link.bytes},
                     {"seconds", link.seconds}});
  nlohmann::json attention = nlohmann::json::array();
  for (const plan::AttentionPoint& point : cluster.attention)
    attention.push_back({{"precision", to_string(point.precision)},
                         {"head_dim", point.head_dim},
                         {"forward_gflops", point.forward / 1e9},
                         {"backward_gflops", point.backward / 1e9}});
  for (const auto& [key, source] : cluster.provenance) provenance[key] = source;
  return {{"name", cluster.name},
          {"cores", cluster.cores},
          {"memory_gib", cluster.memory_bytes / (1 << 30)},
          {"gemm_float32_gflops", cluster.peak_float32 / 1e9},
          {"gemm_bf16_gflops", cluster.peak_bf16 / 1e9},
          {"memory_gb_per_s", cluster.memory_bytes_per_s / 1e9},
          {"kernel_overhead_us", cluster.kernel_overhead_s * 1e6},
          {"running", cluster.running},
          {"speed", cluster.speed},
          {"threads", cluster.threads},
          {"thread_speed", cluster.thread_speed},
          {"attention", attention},
          {"links", links},
          {"provenance", provenance},
          {"seconds", seconds}};
}

void print_summary(const plan::Cluster& cluster, double seconds, FILE* out) {
  fmt::print(
      out, "{} cores, products up to {:.1f} GFLOP/s float32 and {:.1f} bf16 on one, memory {:.1f} GB/s\n",
      cluster.cores, cluster.peak_float32 / 1e9, cluster.peak_bf16 / 1e9, cluster.memory_bytes_per_s / 1e9);
  for (size_t i = 1; i < cluster.running.size(); ++i)
    fmt::print(out, "{} processes at once: {:.0f} % of the speed of one alone, each\n", cluster.running[i],
               100 * cluster.speed[i]);
  for (int64_t ranks : {2, 4})
    fmt::print(out, "all-gather of 1 MiB over {} ranks: {:.0f} us\n", ranks,
               1e6 * plan::collective_s(cluster, plan::Collective::all_gather, ranks, 1, 1 << 20));
  fmt::print(out, "measured in {:.1f} s\n", seconds);
}

nlohmann::json to_json(const CalibratedServing& done) {
  const plan::serving::HostFit& fit = done.fit;
  nlohmann::json engine = nlohmann::json::object(), provenance = nlohmann::json::object();
  for (const auto& field : plan::serving::engine_fields()) engine[field.name] = fit.host.engine.*field.member;
  for (const auto& [key, source] : fit.host.provenance) provenance[key] = source;
  nlohmann::json loads = nlohmann::json::array();
  for (size_t i = 0; i < done.timed.size(); ++i) {
    const auto& last = done.timed[i].steps.back();
    double tokens = 0;
    for (const auto& load : done.timed[i].steps) tokens += load.prefill_tokens;
    loads.push_back({{"sequences", last.decode_sequences},
                     {"context", last.decode_context},
                     {"prompt_tokens", tokens},
                     {"timed_s", done.timed[i].seconds},
                     {"predicted_s", fit.predicted_s[i]}});
  }
  return {{"loads", loads},
          {"products_gflops", fit.host.device.bf16 / 1e9},
          {"memory_gb_per_s", fit.host.device.memory_bytes_per_s / 1e9},
          {"engine", engine},
          {"mean_error", fit.mean_error},
          {"max_error", fit.max_error},
          {"provenance", provenance}};
}

void print_serving(const plan::serving::HostFit& fit, FILE* out) {
  const auto& device = fit.host.device;
  fmt::print(out,
             "serving: products up to {:.0f} GFLOP/s, weights at up to {:.1f} GB/s; timed loads predicted "
             "within {:.1f} % "
             "(mean), {:.1f} % (largest)\n",
             device.bf16 / 1e9, device.memory_bytes_per_s / 1e9, 100 * fit.mean_error, 100 * fit.max_error);
}

Result<CalibratedServing> time_serving(const CalibrateOptions& options) {
  Clock::time_point start = Clock::now();
  CalibrateServing serving = options.serving;
  serving.progress = [&](const std::string& what, double done) { show_progress(what, done, start); };
  return calibrate_serving(serving);
}

Status run(const CalibrateOptions& options) {
  std::optional<CalibratedServing> serving;  // first: a wrong model ends the command at once
  if (!options.serving.model.empty()) {
    TESSERA_ASSIGN_OR_RETURN(serving, time_serving(options));
  }
  Clock::time_point start = Clock::now();
  train::CalibrationOptions calibration;
  calibration.seconds = options.seconds;
  calibration.progress = [&](const std::string& what, double done) { show_progress(what, done, start); };
  TESSERA_ASSIGN_OR_RETURN(plan::Cluster cluster, train::calibrate(calibration));
  double seconds = seconds_since(start);
  FILE* out = options.json == "-" ? stderr : stdout;
  print_summary(cluster, seconds, out);
  std::string file = plan::to_toml(cluster);
  nlohmann::json json = to_json(cluster, seconds);
  if (serving) {
    print_serving(serving->fit, out);
    file += "\n" + plan::serving::to_toml(serving->fit.host);
    json["serving"] = to_json(*serving);
  }
  if (!options.out.empty()) TESSERA_RETURN_IF_ERROR(write_file_atomically(options.out, file));
  if (options.json.empty()) return {};
  std::string text = json.dump(2) + "\n";
  if (options.json != "-") return write_file_atomically(options.json, text);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return {};
}

}  // namespace

void add_calibrate(CLI::App& app) {
  auto options = std::make_shared<CalibrateOptions>();
  CLI::App* command = app.add_subcommand("calibrate", "Measure this machine for the planner");
  command->add_option("--out", options->out, "Write a cluster file (TOML) for plan --cluster");
  command->add_option("--json", options->json, "Write the figures as JSON; - for standard output");
  command->add_option("--seconds", options->seconds, "About how long to measure")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 300.0));
  command
      ->add_option("--serve", options->serving.model,
                   "Model directory: time the server's engine on it too, for plan serve")
      ->check(CLI::ExistingDirectory);
  command->add_option("--dtype", options->serving.dtype, "With --serve: activations and KV, float32 or bf16")
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "bf16"}));
  command
      ->add_option("--threads", options->serving.threads, "With --serve: threads of the server; 0: all cores")
      ->check(CLI::Range(int64_t{0}, int64_t{1024}));
  command->footer(
      "Examples:\n  tessera calibrate --out here.toml\n"
      "  tessera plan train --model config.json --cluster here.toml --gpus 4 --seq 256 --batch 24\n"
      "  tessera calibrate --serve DIR --out here.toml\n"
      "  tessera plan serve --model DIR/config.json --cluster here.toml --precision int8 --trace requests.csv");
  command->callback([options] {
    if (Status status = run(*options); !status) report_error(status.error());
  });
}

}  // namespace tessera::cli
