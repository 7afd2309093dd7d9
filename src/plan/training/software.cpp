#include "plan/training/software.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/nearest.h"
#include "core/toml.h"
#include "plan/embedded.h"

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
    {"pointwise", &SoftwareGeneration::pointwise},
    {"grouped", &SoftwareGeneration::grouped},
    {"tp_exposed", &SoftwareGeneration::tp_exposed},
    {"ep_exposed", &SoftwareGeneration::ep_exposed},
    {"dp_exposed", &SoftwareGeneration::dp_exposed},
    {"pp_exposed", &SoftwareGeneration::pp_exposed},
    {"contention", &SoftwareGeneration::contention},
    {"host_layer_s", &SoftwareGeneration::host_layer_s},
    {"host_experts_s", &SoftwareGeneration::host_experts_s},
    {"step_s", &SoftwareGeneration::step_s},
    {"half_width", &SoftwareGeneration::half_width},
};

Status read_field(const TomlDocument& document, const std::string& path, const std::string& key,
                  const json& value, SoftwareGeneration& into) {
  if (key == "source" && value.is_string()) return into.source = value.get<std::string>(), Status{};
  std::vector<std::string> known = {"source"};
  for (const Field& field : kFields) {
    known.push_back(field.key);
    if (key != field.key) continue;
    if (!value.is_number() || value.get<double>() < 0)
      return invalid("{}: key '{}.{}': expected a number of at least 0", document.where(path), path, key);
    into.*field.member = value.get<double>();
    return {};
  }
  return invalid("{}: key '{}.{}' is unknown{}", document.where(path), path, key, did_you_mean(key, known));
}

Result<std::vector<SoftwareGeneration>> parse(std::string_view toml, const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(toml, name));
  std::vector<SoftwareGeneration> generations;
  for (const auto& [key, table] : document.root.items()) {
    if (!table.is_object()) return invalid("{}: '{}' must be a table", document.where(key), key);
    SoftwareGeneration generation{.name = key};
    for (const auto& [field, value] : table.items())
      TESSERA_RETURN_IF_ERROR(read_field(document, key, field, value, generation));
    generations.push_back(std::move(generation));
  }
  return generations;
}

std::vector<SoftwareGeneration>& catalogue() {
  static std::vector<SoftwareGeneration> generations = [] {
    for (const EmbeddedFile& file : embedded_files()) {
      if (file.path != "software/training.toml") continue;
      auto parsed = parse(file.text, file.path);
      TESSERA_REQUIRE(parsed.ok(), "{}", parsed.error().message);
      return std::move(*parsed);
    }
    return std::vector<SoftwareGeneration>{};
  }();
  return generations;
}

}  // namespace

std::vector<std::string> software_names() {
  std::vector<std::string> names;
  for (const SoftwareGeneration& generation : catalogue()) names.push_back(generation.name);
  return names;
}

Result<SoftwareGeneration> software_by_name(const std::string& name) {
  for (const SoftwareGeneration& generation : catalogue())
    if (generation.name == name) return generation;
  auto names = software_names();
  return make_error(ErrorCode::not_found, "no training software named '{}'{}; known: {}", name,
                    did_you_mean(name, names), fmt::join(names, ", "));
}

const SoftwareGeneration& newest_software() {
  const auto& all = catalogue();
  return *std::max_element(all.begin(), all.end(),
                           [](const auto& a, const auto& b) { return a.year < b.year; });
}

Status override_software(std::string_view toml, const std::string& file_name) {
  TESSERA_ASSIGN_OR_RETURN(auto generations, parse(toml, file_name));
  catalogue() = std::move(generations);
  return {};
}

}  // namespace tessera::plan
