#include "plan/serving/engine.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/nearest.h"
#include "core/text.h"
#include "core/toml.h"
#include "plan/embedded.h"

namespace tessera::plan::serving {
namespace {

Status read_number(const nlohmann::json& value, const std::string& where, double low, double high,
                   double& out) {
  if (!value.is_number()) return invalid("{} must be a number, got a {}", where, kind_name(value));
  out = value.get<double>();
  if (out < low || out > high) return invalid("{} is {}, expected {} to {}", where, out, low, high);
  return {};
}

Status read_key(const std::string& key, const nlohmann::json& value, const std::string& where, Engine& engine) {
  for (const EngineField& field : engine_fields())
    if (key == field.name) return read_number(value, where, 0, 1e12, engine.*field.member);
  if (key == "name" || key == "version") return {};
  if (key == "prefill") {
    engine.prefill = value == "first" ? PrefillPolicy::first : PrefillPolicy::chunked;
    return value == "first" || value == "chunked" ? Status() : invalid("{} must be chunked or first", where);
  }
  if (key == "reserves_output" || key == "share_of_free") {
    if (!value.is_boolean()) return invalid("{} must be true or false", where);
    (key == "reserves_output" ? engine.reserves_output : engine.share_of_free) = value.get<bool>();
    return {};
  }
  if (key == "fixed" && value.is_array()) {
    engine.fixed.clear();
    for (const auto& name : value) {
      auto is = [&](const EngineField& field) { return name == field.name; };
      if (std::none_of(engine_fields().begin(), engine_fields().end(), is))
        return invalid("{}: {} is no constant of an engine", where, name.dump());
      engine.fixed.push_back(name.get<std::string>());
    }
    return {};
  }
  if (key == "rates" && value.is_object()) {
    for (const auto& [name, rate] : value.items())
      TESSERA_RETURN_IF_ERROR(read_number(rate, where + "." + name, 0.01, 10, engine.rates[name]));
    return {};
  }
  std::vector<std::string> known = {"name",          "version", "prefill", "reserves_output",
                                    "share_of_free", "fixed",   "rates"};
  for (const EngineField& field : engine_fields()) known.push_back(field.name);
  return invalid("{} is no key of an engine{}", where, did_you_mean(key, known));
}

}  // namespace

double Engine::rate(const std::string& key) const {
  auto found = rates.find(key);
  if (found != rates.end()) return found->second;
  size_t dash = key.find('-'), dot = key.find('.');
  if (dash == std::string::npos || dash > dot) return 1;
  return rate(key.substr(0, dash) + key.substr(dot));
}

Result<Engine> read_engine(const nlohmann::json& table, const std::string& where) {
  Engine engine;
  engine.name = table.value("name", "");
  engine.version = table.value("version", "");
  for (const auto& [key, value] : table.items())
    TESSERA_RETURN_IF_ERROR(read_key(key, value, where + ": " + key, engine));
  return engine;
}

const std::vector<EngineField>& engine_fields() {
  static const std::vector<EngineField> fields = {
      {"compute", &Engine::compute, 0.2, 1.4},
      {"memory", &Engine::memory, 0.4, 1.25},
      {"expert_compute", &Engine::expert_compute, 0.05, 1.4},
      {"expert_rows", &Engine::expert_rows, 64, 8192},
      {"expert_memory", &Engine::expert_memory, 0.2, 1.2},
      {"attention", &Engine::attention, 0.1, 3},
      {"cache_memory", &Engine::cache_memory, 0.15, 1.25},
      {"activations", &Engine::activations, 2, 60},
      {"layer_s", &Engine::layer_s, 1e-6, 1e-4, true},
      {"expert_layer_s", &Engine::expert_layer_s, 1e-7, 1e-3, true},
      {"step_s", &Engine::step_s, 1e-5, 2e-2, true},
      {"sequence_s", &Engine::sequence_s, 1e-7, 1e-4, true},
      {"prompt_s", &Engine::prompt_s, 1e-4, 0.4, true},
      {"admission_steps", &Engine::admission_steps, 0.2, 60, true},
      {"dp_admission_steps", &Engine::dp_admission_steps, 0.2, 120, true},
      {"clump", &Engine::clump, 1, 8, true},
      {"dp_balance_steps", &Engine::dp_balance_steps, 0, 1000},
      {"poll_steps", &Engine::poll_steps, 0, 1000},
      {"batch_wait_steps", &Engine::batch_wait_steps, 0, 1000},
      {"batch_wait_share", &Engine::batch_wait_share, 0, 1},
      {"reduce_s", &Engine::reduce_s, 1e-6, 1e-4},
      {"exchange_s", &Engine::exchange_s, 1e-6, 6e-5, true},
      {"link", &Engine::link, 0.1, 1.5},
      {"network", &Engine::network, 0.1, 1.0},
      {"expert_skew", &Engine::expert_skew, 0, 1.2},
      {"lockstep", &Engine::lockstep, 0, 1},
      {"budget_tokens", &Engine::budget_tokens, 128, 1e6, true},
      {"max_running", &Engine::max_running, 1, 1e6},
      {"memory_share", &Engine::memory_share, 0.1, 1},
      {"workspace_bytes", &Engine::workspace_bytes, 1e9, 1.6e10},
      {"kv_bytes", &Engine::kv_bytes, 0.5, 4},
      {"draft_tokens", &Engine::draft_tokens, 0, 8, true},
      {"draft_acceptance", &Engine::draft_acceptance, 0, 1},
  };
  return fields;
}

Result<EngineCatalogue> EngineCatalogue::parse(const std::string& text, const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(text, name));
  EngineCatalogue catalogue;
  for (const auto& [key, list] : document.root.items()) {
    if (key == "intervals" || key == "source") continue;
    if (key != "engine" || !list.is_array()) return invalid("{}: '{}' is no [[engine]] table", name, key);
    for (const auto& table : list) {
      Engine engine;
      engine.name = table.value("name", "");
      engine.version = table.value("version", "");
      std::string label = fmt::format("{}: engine {} {}", name, engine.name, engine.version);
      if (engine.name.empty()) return invalid("{}: an [[engine]] has no name", name);
      // An entry for a version starts from the entry of its engine above.
      for (const Engine& other : catalogue.entries_)
        if (other.name == engine.name && other.version.empty()) {
          std::string version = engine.version;
          engine = other;
          engine.version = version;
        }
      for (const auto& [field, value] : table.items())
        TESSERA_RETURN_IF_ERROR(read_key(field, value, label + ": " + field, engine));
      catalogue.entries_.push_back(std::move(engine));
    }
  }
  if (catalogue.entries_.empty()) return invalid("{} has no [[engine]]", name);
  return catalogue;
}

const EngineCatalogue& EngineCatalogue::built_in() {
  static const EngineCatalogue catalogue = [] {
    for (const EmbeddedFile& file : embedded_files())
      if (file.path == "serving/engines.toml") {
        auto parsed = parse(file.text, file.path);
        TESSERA_REQUIRE(parsed.ok(), "{}", parsed.ok() ? "" : parsed.error().message);
        return *std::move(parsed);
      }
    TESSERA_REQUIRE(false, "serving/engines.toml is not embedded");
    return EngineCatalogue();
  }();
  return catalogue;
}

std::vector<std::string> EngineCatalogue::names() const {
  std::vector<std::string> names;
  for (const Engine& engine : entries_)
    if (std::find(names.begin(), names.end(), engine.name) == names.end()) names.push_back(engine.name);
  return names;
}

Result<Engine> EngineCatalogue::find(const std::string& name, const std::string& version) const {
  std::string wanted = lower_ascii(name);
  if (wanted.starts_with("tensorrt") || wanted.starts_with("trt")) wanted = "trtllm";
  for (const auto& known : names())
    if (wanted.starts_with(known)) wanted = known;
  const Engine* best = nullptr;
  for (const Engine& engine : entries_) {
    if (engine.name != wanted) continue;
    bool stands_for = lower_ascii(version).starts_with(lower_ascii(engine.version));
    if (stands_for && (!best || engine.version.size() > best->version.size())) best = &engine;
  }
  if (!best)
    return make_error(ErrorCode::not_found, "no engine named '{}'{}; known: {}", name,
                      did_you_mean(wanted, names()), fmt::join(names(), ", "));
  Engine engine = *best;
  if (!version.empty()) engine.version = version;
  return engine;
}

std::string EngineCatalogue::to_toml() const {
  std::string text;
  for (const Engine& engine : entries_) {
    const Engine* base = nullptr;  // only what differs from it is written
    for (const Engine& other : entries_)
      if (!engine.version.empty() && other.name == engine.name && other.version.empty()) base = &other;
    text += fmt::format("\n[[engine]]\nname = \"{}\"\nversion = \"{}\"\n", engine.name, engine.version);
    if (!base || base->prefill != engine.prefill)
      text += fmt::format("prefill = \"{}\"\n", engine.prefill == PrefillPolicy::first ? "first" : "chunked");
    if (!base || base->reserves_output != engine.reserves_output)
      text += fmt::format("reserves_output = {}\n", engine.reserves_output);
    if (!base || base->share_of_free != engine.share_of_free)
      text += fmt::format("share_of_free = {}\n", engine.share_of_free);
    if (base ? base->fixed != engine.fixed : !engine.fixed.empty()) {
      std::vector<std::string> names;
      for (const std::string& name : engine.fixed) names.push_back('"' + name + '"');
      text += fmt::format("fixed = [{}]\n", fmt::join(names, ", "));
    }
    for (const EngineField& field : engine_fields())
      if (!base || base->*field.member != engine.*field.member)
        text += fmt::format("{} = {:.4g}\n", field.name, engine.*field.member);
    if (engine.rates.empty() || (base && base->rates == engine.rates)) continue;
    text += "[engine.rates]\n";
    for (const auto& [key, rate] : engine.rates) text += fmt::format("\"{}\" = {:.4g}\n", key, rate);
  }
  return text;
}

}  // namespace tessera::plan::serving
