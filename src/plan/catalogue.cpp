#include "plan/catalogue.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/nearest.h"
#include "core/text.h"
#include "core/toml.h"
#include "plan/cluster.h"
#include "plan/embedded.h"

namespace tessera::plan {
namespace {

bool is_in(const EmbeddedFile& file, const char* folder) {
  return std::filesystem::path(file.path).parent_path() == folder;
}

ModelEntry entry_of(const std::string& name, const nlohmann::json& table) {
  return {.name = name,
          .aliases = table.value("aliases", std::vector<std::string>{}),
          .source = table.value("source", ""),
          .parameters = table.value("parameters", ""),
          .active = table.value("active", ""),
          .config_json = table.at("config").dump()};
}

std::vector<ModelEntry> read_entries() {
  std::vector<ModelEntry> entries;
  for (const EmbeddedFile& file : embedded_files()) {
    if (!is_in(file, "models")) continue;
    auto document = parse_toml(file.text, file.path);
    TESSERA_REQUIRE(document.ok(), "{}", document.error().message);
    for (const auto& [name, table] : document->root.items()) entries.push_back(entry_of(name, table));
  }
  return entries;
}

bool is_path(const std::string& text) {
  std::error_code ignored;
  return text.find('/') != std::string::npos || text.ends_with(".json") ||
         std::filesystem::exists(text, ignored);
}

Result<const ModelEntry*> entry_named(const std::string& name) {
  std::vector<std::string> known;
  for (const ModelEntry& entry : model_entries()) {
    known.push_back(entry.name);
    known.insert(known.end(), entry.aliases.begin(), entry.aliases.end());
    if (entry.name == lower_ascii(name)) return &entry;
    for (const std::string& alias : entry.aliases)
      if (alias == lower_ascii(name)) return &entry;
  }
  return make_error(ErrorCode::not_found, "no model named '{}'{}; known: {}; or give a path", name,
                    did_you_mean(lower_ascii(name), known), fmt::join(model_names(), ", "));
}

}  // namespace

const std::vector<ModelEntry>& model_entries() {
  static const std::vector<ModelEntry> entries = read_entries();
  return entries;
}

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const ModelEntry& entry : model_entries()) names.push_back(entry.name);
  return names;
}

std::vector<std::string> cluster_names() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : embedded_files())
    if (is_in(file, "clusters")) names.push_back(std::filesystem::path(file.path).stem().string());
  return names;
}

Result<Cluster> cluster_by_name(const std::string& name) {
  for (const EmbeddedFile& file : embedded_files())
    if (is_in(file, "clusters") && std::filesystem::path(file.path).stem() == name)
      return parse_cluster(file.text, name + ".toml");
  auto names = cluster_names();
  return make_error(ErrorCode::not_found, "no cluster named '{}'{}; known: {}; or give a path", name,
                    did_you_mean(name, names), fmt::join(names, ", "));
}

Result<Blueprint> find_model(const std::string& name_or_path) {
  if (is_path(name_or_path)) return load_blueprint(name_or_path);
  TESSERA_ASSIGN_OR_RETURN(const ModelEntry* entry, entry_named(name_or_path));
  auto model = parse_blueprint(nlohmann::json::parse(entry->config_json));
  if (!model) return model.error().within(entry->name);
  model->name = entry->name;
  return model;
}

Result<ModelSpec> load_model(const std::string& name_or_path) {
  if (is_path(name_or_path)) return load_model_spec(name_or_path);
  TESSERA_ASSIGN_OR_RETURN(const ModelEntry* entry, entry_named(name_or_path));
  auto model = parse_model_spec(nlohmann::json::parse(entry->config_json));
  if (!model) return model.error().within(entry->name);
  return model;
}

}  // namespace tessera::plan
