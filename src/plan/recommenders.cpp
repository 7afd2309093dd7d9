#include "plan/recommenders.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/nearest.h"
#include "core/toml.h"
#include "plan/embedded.h"

namespace tessera::plan {
namespace {

using nlohmann::json;

Error bad(const std::string& name, const char* key, const char* expected) {
  return invalid("recommender {}: field '{}': expected {}", name, key, expected);
}

Result<std::vector<double>> read_numbers(const std::string& name, const json& table, const char* key,
                                         size_t count) {
  if (!table.contains(key)) return std::vector<double>(count, 1);
  const json& value = table[key];
  if (value.is_number()) return std::vector<double>(count, value.get<double>());
  if (!value.is_array() || (count > 0 && value.size() != count))
    return bad(name, key, "a number for each table");
  std::vector<double> numbers;
  for (const json& one : value) {
    if (!one.is_number() || one.get<double>() <= 0) return bad(name, key, "positive numbers");
    numbers.push_back(one.get<double>());
  }
  return numbers;
}

Result<int64_t> read_size(const std::string& name, const json& table, const char* key) {
  if (!table.contains(key)) return int64_t{0};
  if (!table[key].is_number_integer() || table[key].get<int64_t>() < 0)
    return bad(name, key, "an integer, 0 or more");
  return table[key].get<int64_t>();
}

Result<std::vector<int64_t>> read_widths(const std::string& name, const json& table, const char* key) {
  TESSERA_ASSIGN_OR_RETURN(auto numbers, read_numbers(name, table, key, 0));
  return std::vector<int64_t>(numbers.begin(), numbers.end());
}

Result<Interaction> read_interaction(const std::string& name, const json& table) {
  static const std::map<std::string, Interaction> known = {
      {"dot", Interaction::dot}, {"cross", Interaction::cross}, {"concat", Interaction::concat}};
  auto found = known.find(table.value("interaction", "concat"));
  if (found == known.end()) return bad(name, "interaction", "dot, cross or concat");
  return found->second;
}

Status check_keys(const std::string& name, const json& table) {
  static const std::vector<std::string> known = {
      "source",       "rows",       "pooling", "dim", "dense_features",
      "cross_layers", "cross_rank", "bottom",  "top", "interaction"};
  for (const auto& [key, value] : table.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      return invalid("recommender {}: unknown key '{}'{}", name, key, did_you_mean(key, known));
  return {};
}

Result<Recommender> read_recommender(const std::string& name, const json& table) {
  TESSERA_RETURN_IF_ERROR(check_keys(name, table));
  if (!table.contains("rows") || !table["rows"].is_array() || table["rows"].empty())
    return bad(name, "rows", "a list of numbers, one per table");
  Recommender model;
  model.name = name, model.source = table.value("source", "");
  size_t count = table["rows"].size();
  TESSERA_ASSIGN_OR_RETURN(auto rows, read_numbers(name, table, "rows", count));
  TESSERA_ASSIGN_OR_RETURN(auto pooling, read_numbers(name, table, "pooling", count));
  TESSERA_ASSIGN_OR_RETURN(int64_t dim, read_size(name, table, "dim"));
  if (dim == 0) return bad(name, "dim", "a positive integer");
  for (size_t i = 0; i < count; ++i) model.tables.push_back({rows[i], dim, pooling[i]});
  TESSERA_ASSIGN_OR_RETURN(model.dense_features, read_size(name, table, "dense_features"));
  TESSERA_ASSIGN_OR_RETURN(model.cross_layers, read_size(name, table, "cross_layers"));
  TESSERA_ASSIGN_OR_RETURN(model.cross_rank, read_size(name, table, "cross_rank"));
  TESSERA_ASSIGN_OR_RETURN(model.bottom, read_widths(name, table, "bottom"));
  TESSERA_ASSIGN_OR_RETURN(model.top, read_widths(name, table, "top"));
  TESSERA_ASSIGN_OR_RETURN(model.interaction, read_interaction(name, table));
  return model;
}

const json& recommender_catalogue() {
  static const json root = [] {
    for (const EmbeddedFile& file : embedded_files())
      if (file.path == "recommenders.toml") return parse_toml(file.text, file.path).value().root;
    return json::object();
  }();
  return root;
}

}  // namespace

std::vector<std::string> recommender_names() {
  std::vector<std::string> names;
  for (const auto& [name, table] : recommender_catalogue().items()) names.push_back(name);
  return names;
}

Result<Recommender> find_recommender(const std::string& name_or_path) {
  if (name_or_path.ends_with(".toml")) {
    TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(name_or_path));
    TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(text, name_or_path));
    if (document.root.size() != 1 || !document.root.begin()->is_object())
      return invalid("{}: expected one table, named as the recommender", name_or_path);
    return read_recommender(document.root.begin().key(), *document.root.begin());
  }
  auto found = recommender_catalogue().find(name_or_path);
  if (found != recommender_catalogue().end()) return read_recommender(name_or_path, *found);
  auto names = recommender_names();
  return make_error(ErrorCode::not_found, "no recommender named '{}'{}; known: {}; or give a TOML file",
                    name_or_path, did_you_mean(name_or_path, names), fmt::join(names, ", "));
}

}  // namespace tessera::plan
