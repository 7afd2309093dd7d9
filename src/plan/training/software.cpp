#include "plan/training/software.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/nearest.h"
#include "core/toml.h"
#include "plan/embedded.h"
#include "plan/training/interval.h"

namespace tessera::plan {
namespace {

using nlohmann::json;

struct Field {
  const char* key;
  double SoftwareGeneration::*member;
};
constexpr Field kFields[] = {
    {"year", &SoftwareGeneration::year},
    {"products", &SoftwareGeneration::products},
    {"attention", &SoftwareGeneration::attention},
    {"attention_hopper", &SoftwareGeneration::attention_hopper},
    {"pointwise", &SoftwareGeneration::pointwise},
    {"grouped", &SoftwareGeneration::grouped},
    {"tp_exposed", &SoftwareGeneration::tp_exposed},
    {"ep_exposed", &SoftwareGeneration::ep_exposed},
    {"dp_exposed", &SoftwareGeneration::dp_exposed},
    {"pp_exposed", &SoftwareGeneration::pp_exposed},
    {"sharded_rate", &SoftwareGeneration::sharded_rate},
    {"cp_slowdown", &SoftwareGeneration::cp_slowdown},
    {"dedupe", &SoftwareGeneration::dedupe},
    {"narrow_host", &SoftwareGeneration::narrow_host},
    {"contention", &SoftwareGeneration::contention},
    {"host_layer_s", &SoftwareGeneration::host_layer_s},
    {"host_experts_s", &SoftwareGeneration::host_experts_s},
    {"step_s", &SoftwareGeneration::step_s},
    {"half_width", &SoftwareGeneration::half_width},
};

struct DeviceField {
  const char* key;
  double Efficiencies::*member;
};
constexpr DeviceField kDeviceFields[] = {
    {"gemm_bf16", &Efficiencies::gemm_bf16},
    {"gemm_fp8", &Efficiencies::gemm_fp8},
    {"gemm_fp4", &Efficiencies::gemm_fp4},
    {"attention_forward", &Efficiencies::attention_forward},
    {"attention_backward", &Efficiencies::attention_backward},
    {"memory", &Efficiencies::memory},
    {"link", &Efficiencies::link},
    {"network", &Efficiencies::network},
};

struct Constants {
  std::vector<SoftwareGeneration> software;
  std::map<std::string, Efficiencies> devices;
  std::set<std::string> seen;    // devices with rows in the fit
  double unseen_half_width = 0;  // of the interval on any other
};

// Sets the members that `fields` names from a table of numbers.
template <class Owner, class Fields>
Status read_numbers(const TomlDocument& document, const std::string& path, const json& table,
                    const Fields& fields, Owner& into) {
  std::vector<std::string> known;
  for (const auto& field : fields) known.push_back(field.key);
  for (const auto& [key, value] : table.items()) {
    if (key == "source" || key == "schedules" || key == "rows") continue;
    auto found = std::find(known.begin(), known.end(), key);
    if (found == known.end())
      return invalid("{}: key '{}.{}' is unknown{}", document.where(path), path, key, did_you_mean(key, known));
    if (!value.is_number() || value.template get<double>() < 0)
      return invalid("{}: key '{}.{}': expected a number of at least 0", document.where(path), path, key);
    into.*fields[found - known.begin()].member = value.template get<double>();
  }
  return {};
}

Result<Constants> parse(std::string_view toml, const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(toml, name));
  Constants constants;
  const json software = document.root.value("software", json::object());
  for (const auto& [key, table] : software.items()) {
    SoftwareGeneration generation{.name = key};
    if (table.contains("source") && table.at("source").is_string())
      generation.source = table.at("source").get<std::string>();
    TESSERA_RETURN_IF_ERROR(read_numbers(document, "software." + key, table, kFields, generation));
    if (table.contains("schedules")) {
      const json& schedules = table.at("schedules");
      if (!schedules.is_string())
        return invalid("{}: key 'software.{}.schedules': expected a text such as \"1f1b,gpipe\"",
                       document.where("software." + key), key);
      TESSERA_ASSIGN_OR_RETURN(generation.schedules, parse_pipeline_kinds(schedules.get<std::string>()));
    }
    constants.software.push_back(std::move(generation));
  }
  const json devices = document.root.value("device", json::object());
  for (const auto& [key, table] : devices.items()) {
    TESSERA_RETURN_IF_ERROR(
        read_numbers(document, "device." + key, table, kDeviceFields, constants.devices[key]));
    if (table.value("rows", 0) > 0) constants.seen.insert(key);
  }
  constants.unseen_half_width = document.root.value("unseen", json::object()).value("half_width", 0.0);
  if (constants.software.empty()) return invalid("{}: no table software.NAME", name);
  return constants;
}

Constants& constants() {
  static Constants all = [] {
    for (const EmbeddedFile& file : embedded_files()) {
      if (file.path != "constants/training.toml") continue;
      auto parsed = parse(file.text, file.path);
      TESSERA_REQUIRE(parsed.ok(), "{}", parsed.error().message);
      return std::move(*parsed);
    }
    return Constants{};
  }();
  return all;
}

}  // namespace

std::vector<std::string> software_names() {
  std::vector<std::string> names;
  for (const SoftwareGeneration& generation : constants().software) names.push_back(generation.name);
  return names;
}

Result<SoftwareGeneration> software_by_name(const std::string& name) {
  for (const SoftwareGeneration& generation : constants().software)
    if (generation.name == name) return generation;
  auto names = software_names();
  return make_error(ErrorCode::not_found, "no training software named '{}'{}; known: {}", name,
                    did_you_mean(name, names), fmt::join(names, ", "));
}

const SoftwareGeneration& newest_software() {
  const auto& all = constants().software;
  return *std::max_element(all.begin(), all.end(),
                           [](const auto& a, const auto& b) { return a.year < b.year; });
}

GpuCluster for_training(GpuCluster cluster) {
  auto found = constants().devices.find(cluster.name);
  if (found != constants().devices.end()) cluster.efficiency = found->second;
  return cluster;
}

double interval_half_width(const SoftwareGeneration& software, const GpuCluster& cluster) {
  const Constants& all = constants();
  if (all.seen.contains(cluster.name)) return software.half_width;
  return std::max(software.half_width, all.unseen_half_width);
}

Status override_training_constants(std::string_view toml, const std::string& file_name) {
  TESSERA_ASSIGN_OR_RETURN(constants(), parse(toml, file_name));
  return {};
}

}  // namespace tessera::plan
