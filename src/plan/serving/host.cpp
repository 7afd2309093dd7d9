#include "plan/serving/host.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/nearest.h"
#include "core/numbers.h"
#include "core/toml.h"

namespace tessera::plan::serving {
namespace {

constexpr const char* kTable = "serving_host";

struct Knob {
  double Engine::*constant;
  double low, high;
};

// Memory and limits of the scheduler are known, links are not there: the rest is fitted. Bounds are wide, since
// a constant also takes up what this host does otherwise than an accelerator.
std::vector<Knob> knobs(bool has_experts) {
  std::vector<Knob> all = {{&Engine::compute, 0.05, 2},       {&Engine::memory, 0.05, 2},
                           {&Engine::attention, 0.01, 10},    {&Engine::cache_memory, 0.01, 2},
                           {&Engine::activations, 0.01, 500}, {&Engine::layer_s, 1e-8, 1e-2},
                           {&Engine::step_s, 1e-7, 1e-1},     {&Engine::sequence_s, 1e-8, 1e-2}};
  if (has_experts)
    all.insert(all.end(), {{&Engine::expert_compute, 0.01, 2},
                           {&Engine::expert_memory, 0.01, 2},
                           {&Engine::expert_layer_s, 1e-8, 1e-2},
                           {&Engine::expert_skew, 0, 1.2}});
  return all;
}

double predicted(const StepModel& model, const TimedSteps& timed) {
  double seconds = 0;
  for (const StepLoad& load : timed.steps) seconds += model.seconds(load);
  return seconds;
}

double miss(const Deployment& d, const std::vector<TimedSteps>& timed) {
  StepModel model(d);
  double sum = 0;
  for (const TimedSteps& one : timed) {
    double off = std::log(predicted(model, one) / one.seconds);
    sum += off * off;
  }
  return sum / real(std::ssize(timed));
}

// FLOPs and bytes that a step could not do without, as a device without losses would count them.
void take_peaks(Deployment& d, const std::vector<TimedSteps>& timed) {
  Deployment ideal = d;
  ideal.device.bf16 = ideal.device.attention = 1;
  ideal.device.memory_bytes_per_s = 1e30;
  StepModel flops(ideal);
  ideal.device.bf16 = ideal.device.attention = 1e30;
  ideal.device.memory_bytes_per_s = 1;
  StepModel bytes(ideal);
  auto products = [](const StepBreakdown& b) { return b.products + b.experts + b.head; };
  for (const TimedSteps& one : timed) {
    double multiplied = 0, read = 0;
    for (const StepLoad& load : one.steps)
      multiplied += products(flops.breakdown(load)), read += products(bytes.breakdown(load));
    d.device.bf16 = std::max(d.device.bf16, multiplied / one.seconds);
    d.device.memory_bytes_per_s = std::max(d.device.memory_bytes_per_s, read / one.seconds);
  }
  d.device.attention = d.device.bf16;
}

// One constant at a time, by steps that shrink when a round over all gains little.
void search_constants(Deployment& d, const std::vector<TimedSteps>& timed, const std::vector<Knob>& all) {
  double best = miss(d, timed);
  for (double step = 1.2; step > 0.004;) {
    double before = best;
    for (const Knob& knob : all) {
      double& value = d.engine.*knob.constant;
      double kept = value;
      for (double factor : {std::exp(step), std::exp(-step)}) {
        value = std::clamp(std::max(kept, knob.low) * factor, knob.low, knob.high);
        double now = miss(d, timed);
        if (now < best) {
          best = now;
          break;
        }
        value = kept;
      }
    }
    if (best > before * 0.98) step /= 1.6;
  }
}

Status read_number(const TomlDocument& document, const nlohmann::json& table, const char* key, double& out) {
  std::string path = std::string(kTable) + "." + key;
  if (!table.contains(key)) return invalid("{}: key '{}' is missing", document.where(kTable), path);
  const auto& value = table.at(key);
  if (!value.is_number() || value.get<double>() < 0)
    return invalid("{}: key '{}' is {}, expected a number of at least 0", document.where(path), path,
                   value.dump());
  out = value.get<double>();
  return {};
}

std::vector<std::pair<const char*, double Accelerator::*>> device_numbers() {
  return {{"flops_per_s", &Accelerator::bf16},
          {"attention_flops_per_s", &Accelerator::attention},
          {"memory_bytes", &Accelerator::memory_bytes},
          {"memory_bytes_per_s", &Accelerator::memory_bytes_per_s}};
}

}  // namespace

StepLoad decode_load(double sequences, double context) {
  return {.decode_sequences = sequences, .decode_context = context};
}

StepLoad mixed_load(double sequences, double context, int64_t prompt) {
  StepLoad load = prompt_loads(prompt, prompt).front();
  load.decode_sequences = sequences;
  load.decode_context = context;
  return load;
}

std::vector<StepLoad> prompt_loads(int64_t tokens, int64_t chunk) {
  std::vector<StepLoad> loads;
  for (int64_t at = 0; at < tokens; at += chunk) {
    int64_t now = std::min(chunk, tokens - at);
    loads.push_back({.prefill_tokens = real(now),
                     .prefill_sequences = at + now == tokens ? 1.0 : 0.0,
                     .prefill_span = real(at) + (real(now) + 1) / 2});
  }
  return loads;
}

Result<HostFit> fit_host(const Deployment& start, const std::vector<TimedSteps>& timed) {
  for (const TimedSteps& one : timed)
    if (one.steps.empty() || one.seconds <= 0) return invalid("a timed step without a load or a time");
  if (timed.empty()) return invalid("no step was timed: nothing to fit the host on");
  Deployment d = start;
  take_peaks(d, timed);
  TESSERA_RETURN_IF_ERROR(check(d));
  bool has_experts = std::any_of(d.model.kinds.begin(), d.model.kinds.end(),
                                 [](const Layer& layer) { return layer.ffn.kind == FfnKind::moe; });
  search_constants(d, timed, knobs(has_experts));
  HostFit fit{.host = {.device = d.device, .engine = d.engine, .provenance = {}}, .predicted_s = {}};
  StepModel model(d);
  for (const TimedSteps& one : timed) {
    fit.predicted_s.push_back(predicted(model, one));
    double error = std::abs(fit.predicted_s.back() / one.seconds - 1);
    fit.mean_error += error / real(std::ssize(timed));
    fit.max_error = std::max(fit.max_error, error);
  }
  return fit;
}

std::string to_toml(const ServingHost& host) {
  std::string text = fmt::format("[{}]\nname = {}\n", kTable, tessera::to_toml(host.device.name));
  for (auto [key, member] : device_numbers()) text += fmt::format("{} = {:.6g}\n", key, host.device.*member);
  text += fmt::format("[{}.engine]\nname = {}\nversion = {}\n", kTable, tessera::to_toml(host.engine.name),
                      tessera::to_toml(host.engine.version));
  text += fmt::format("reserves_output = {}\nshare_of_free = {}\n", host.engine.reserves_output,
                      host.engine.share_of_free);
  for (const EngineField& field : engine_fields())
    text += fmt::format("{} = {:.6g}\n", field.name, host.engine.*field.member);
  text += fmt::format("[{}.provenance]\n", kTable);
  for (const auto& [key, source] : host.provenance)
    text += fmt::format("{} = {}\n", key, tessera::to_toml(source));
  return text;
}

Result<ServingHost> parse_serving_host(const std::string& text, const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(text, name));
  if (!document.root.contains(kTable) || !document.root.at(kTable).is_object())
    return invalid("{} has no [{}]: make one with `tessera calibrate --serve MODEL --out FILE`", name, kTable);
  const auto& table = document.root.at(kTable);
  std::vector<std::string> known = {"name", "engine", "provenance"};
  ServingHost host;
  for (auto [key, member] : device_numbers()) {
    known.emplace_back(key);
    TESSERA_RETURN_IF_ERROR(read_number(document, table, key, host.device.*member));
  }
  for (const auto& [key, value] : table.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      return invalid("{}: key '{}.{}' is unknown{}", document.where(std::string(kTable) + "." + key), kTable,
                     key, did_you_mean(key, known));
  host.device.name = table.value("name", "host");
  host.device.generation = "host";
  if (!table.contains("engine") || !table.at("engine").is_object())
    return invalid("{}: [{}.engine] is missing", document.where(kTable), kTable);
  TESSERA_ASSIGN_OR_RETURN(host.engine, read_engine(table.at("engine"), name + ": " + kTable + ".engine"));
  const auto provenance = table.value("provenance", nlohmann::json::object());
  for (const auto& [key, value] : provenance.items())
    host.provenance[key] = value.is_string() ? value.get<std::string>() : value.dump();
  return host;
}

bool is_serving_host(const std::string& path) {
  if (!path.ends_with(".toml")) return false;
  auto text = read_file(path);
  return text.ok() && text->find(std::string("[") + kTable + "]") != std::string::npos;
}

Result<ServingHost> load_serving_host(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(path));
  return parse_serving_host(text, path);
}

}  // namespace tessera::plan::serving
