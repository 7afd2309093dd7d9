#include "plan/catalogue.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/nearest.h"
#include "plan/cluster.h"
#include "plan/embedded.h"

namespace tessera::plan {
namespace {

// Names of the embedded files "FOLDER/NAME.EXTENSION".
std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : embedded_files()) {
    std::filesystem::path path(file.path);
    if (path.parent_path() == folder) names.push_back(path.stem().string());
  }
  return names;
}

Result<std::string> text_of(const std::string& folder, const std::string& name, const char* what) {
  for (const EmbeddedFile& file : embedded_files()) {
    std::filesystem::path path(file.path);
    if (path.parent_path() == folder && path.stem() == name) return file.text;
  }
  auto names = names_in(folder);
  return make_error(ErrorCode::not_found, "no {} named '{}'{}; known: {}; or give a path", what, name,
                    did_you_mean(name, names), fmt::join(names, ", "));
}

}  // namespace

std::vector<std::string> model_names() {
  return names_in("models");
}
std::vector<std::string> cluster_names() {
  return names_in("clusters");
}

Result<Cluster> cluster_by_name(const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, text_of("clusters", name, "cluster"));
  return parse_cluster(text, name + ".toml");
}

Result<ModelSpec> load_model(const std::string& name_or_path) {
  std::error_code ignored;
  bool is_path = name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".json") ||
                 std::filesystem::exists(name_or_path, ignored);
  if (is_path) return load_model_spec(name_or_path);
  TESSERA_ASSIGN_OR_RETURN(std::string text, text_of("models", name_or_path, "model"));
  return parse_model_spec(nlohmann::json::parse(text));
}

}  // namespace tessera::plan
