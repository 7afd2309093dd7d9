// How published benchmarks launch their engines: token budgets, waits and drafts that the tables of results
// leave out but the benchmark's public scripts state (data/serving/recipes.toml). What a recipe sets is named
// in the case's `assumed`. Threads: functions.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "plan/serving/cases.h"

namespace tessera::plan::serving {

struct Recipe {
  std::string script;  // where it stands
  // Which runs it launches; an empty list or no value: any.
  std::string engine;
  std::vector<std::string> versions, models, labels, gpus, formats;  // versions by their first letters
  std::vector<std::string> lengths;                                  // "1024x8192"
  std::optional<bool> attention_dp;
  double tp_below = 1e9, users_from = 0;
  // What it sets: constants of the engine by name; a budget that also holds so many prompts of nominal length,
  // and one token (with drafts more) of each user of a rank.
  std::map<std::string, double> constants;
  double budget_prompts = 0;
  bool budget_users = false;
};

// Errors name the key and the nearest one.
Result<std::vector<Recipe>> parse_recipes(const std::string& toml, const std::string& name);
const std::vector<Recipe>& built_in_recipes();

// All that match, in order: a later one overrides. Only rows of the benchmark that the recipes are of.
void apply_recipes(ServingCase& c, const std::vector<Recipe>& recipes);

}  // namespace tessera::plan::serving
