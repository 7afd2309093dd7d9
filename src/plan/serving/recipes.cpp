#include "plan/serving/recipes.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/nearest.h"
#include "core/numbers.h"
#include "core/text.h"
#include "core/toml.h"
#include "plan/embedded.h"

namespace tessera::plan::serving {
namespace {

struct ListKey {
  const char* name;
  std::vector<std::string> Recipe::*member;
};
constexpr ListKey kLists[] = {{"versions", &Recipe::versions}, {"models", &Recipe::models},
                              {"labels", &Recipe::labels},     {"gpus", &Recipe::gpus},
                              {"formats", &Recipe::formats},   {"lengths", &Recipe::lengths}};
struct NumberKey {
  const char* name;
  double Recipe::*member;
};
constexpr NumberKey kNumbers[] = {{"tp_below", &Recipe::tp_below},
                                  {"users_from", &Recipe::users_from},
                                  {"budget_prompts", &Recipe::budget_prompts}};

bool is_constant(const std::string& name) {
  const auto& fields = engine_fields();
  return std::any_of(fields.begin(), fields.end(),
                     [&](const EngineField& field) { return name == field.name; });
}

std::vector<std::string> known_keys() {
  std::vector<std::string> known = {"script", "engine", "attention_dp", "budget_users"};
  for (const ListKey& key : kLists) known.emplace_back(key.name);
  for (const NumberKey& key : kNumbers) known.emplace_back(key.name);
  for (const EngineField& field : engine_fields()) known.emplace_back(field.name);
  return known;
}

Status read_recipe_key(const std::string& key, const nlohmann::json& value, const std::string& where,
                       Recipe& recipe) {
  auto wrong = [&](const char* wanted) {
    return invalid("{}: '{}' must be {}, got {}", where, key, wanted, value.dump());
  };
  if (key == "script" || key == "engine") {
    if (!value.is_string()) return wrong("text");
    (key == "script" ? recipe.script : recipe.engine) = value.get<std::string>();
    return {};
  }
  if (key == "attention_dp" || key == "budget_users") {
    if (!value.is_boolean()) return wrong("true or false");
    if (key == "budget_users")
      recipe.budget_users = value.get<bool>();
    else
      recipe.attention_dp = value.get<bool>();
    return {};
  }
  for (const ListKey& list : kLists) {
    if (key != list.name) continue;
    auto is_text = [](const nlohmann::json& item) { return item.is_string(); };
    if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_text)) return wrong("a list of texts");
    recipe.*list.member = value.get<std::vector<std::string>>();
    return {};
  }
  if (!value.is_number() || value.get<double>() < 0) return wrong("a number that is not negative");
  for (const NumberKey& number : kNumbers)
    if (key == number.name) {
      recipe.*number.member = value.get<double>();
      return {};
    }
  if (!is_constant(key))
    return invalid("{}: '{}' is no key of a recipe{}", where, key, did_you_mean(key, known_keys()));
  recipe.constants[key] = value.get<double>();
  return {};
}

bool one_of(const std::vector<std::string>& list, const std::string& text) {
  return list.empty() || std::find(list.begin(), list.end(), text) != list.end();
}

// Tables write "TensorRT-LLM" or "trtllm", "B200-180GB" or "b200", "deepseek-ai/DeepSeek-R1" or "DeepSeek-R1".
std::string engine_name(const std::string& published) {
  std::string name = lower_ascii(published);
  return name.starts_with("tensorrt") ? "trtllm" : name;
}
std::string device_name(const std::string& published) {
  return lower_ascii(published.substr(0, published.find_first_of("-_ ")));
}
std::string short_label(const std::string& published) {
  return published.substr(published.find_last_of('/') + 1);
}

bool launches(const Recipe& recipe, const ServingCase& c) {
  if (!recipe.engine.empty() && recipe.engine != engine_name(c.engine)) return false;
  auto starts = [&](const std::string& version) { return c.version.starts_with(version); };
  if (!recipe.versions.empty() && std::none_of(recipe.versions.begin(), recipe.versions.end(), starts))
    return false;
  if (recipe.attention_dp && *recipe.attention_dp != (c.layout.dp > 1)) return false;
  auto is_a = [&](const std::string& format) { return c.experts.starts_with(format); };  // fp8_block is fp8
  if (!recipe.formats.empty() && std::none_of(recipe.formats.begin(), recipe.formats.end(), is_a)) return false;
  std::string lengths = fmt::format("{:.0f}x{:.0f}", c.nominal_input_tokens, c.nominal_output_tokens);
  return one_of(recipe.models, c.model) && one_of(recipe.labels, short_label(c.label)) &&
         one_of(recipe.gpus, device_name(c.device)) && one_of(recipe.lengths, lengths) &&
         real(c.layout.tp) < recipe.tp_below && c.traffic.concurrency >= recipe.users_from;
}

void set(ServingCase& c, const std::string& name, double value, const std::string& script) {
  c.constants[name] = value;
  c.assumed[name] = fmt::format("{:g}, from {}", value, script);
}

}  // namespace

Result<std::vector<Recipe>> parse_recipes(const std::string& text, const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(TomlDocument document, parse_toml(text, name));
  std::vector<Recipe> recipes;
  for (const auto& [key, list] : document.root.items()) {
    if (key == "source") continue;
    if (key != "recipe" || !list.is_array()) return invalid("{}: '{}' is no [[recipe]] table", name, key);
    for (size_t i = 0; i < list.size(); ++i) {
      Recipe recipe;
      std::string where = document.where(fmt::format("recipe.{}", i));
      for (const auto& [field, value] : list[i].items())
        TESSERA_RETURN_IF_ERROR(read_recipe_key(field, value, where, recipe));
      recipes.push_back(std::move(recipe));
    }
  }
  return recipes;
}

const std::vector<Recipe>& built_in_recipes() {
  static const std::vector<Recipe> recipes = [] {
    for (const EmbeddedFile& file : embedded_files())
      if (file.path == "serving/recipes.toml") {
        auto parsed = parse_recipes(file.text, file.path);
        TESSERA_REQUIRE(parsed.ok(), "{}", parsed.ok() ? "" : parsed.error().message);
        return *std::move(parsed);
      }
    return std::vector<Recipe>();
  }();
  return recipes;
}

void apply_recipes(ServingCase& c, const std::vector<Recipe>& recipes) {
  if (!c.inferencex || c.disaggregated || !c.refused.empty()) return;
  for (const Recipe& recipe : recipes) {
    if (!launches(recipe, c)) continue;
    for (const auto& [name, value] : recipe.constants) set(c, name, value, recipe.script);
    if (recipe.budget_prompts == 0) continue;
    auto found = c.constants.find("draft_tokens");
    double rows = 1 + (found == c.constants.end() ? 0 : found->second);
    double users = recipe.budget_users ? rows * std::ceil(c.traffic.concurrency / real(c.layout.dp)) + 64 : 0;
    double budget = recipe.budget_prompts * c.nominal_input_tokens + users;
    set(c, "budget_tokens", std::max(c.constants["budget_tokens"], budget), recipe.script);
  }
}

}  // namespace tessera::plan::serving
