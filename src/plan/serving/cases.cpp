#include "plan/serving/cases.h"

#include <algorithm>

#include "core/text.h"
#include "plan/serving/recipes.h"

namespace tessera::plan::serving {

std::string catalogue_model(const std::string& published_name) {
  std::string name = lower_ascii(published_name.substr(published_name.find_last_of('/') + 1));
  for (const char* tail : {"-nvfp4", "-fp8", "-instruct", "-hf"})
    if (name.ends_with(tail)) name.resize(name.size() - std::string(tail).size());
  if (name.ends_with("-instruct")) name.resize(name.size() - 9);
  // Equal architectures under several names.
  static const std::map<std::string, std::string> same = {
      {"deepseek-r1", "deepseek-v3"}, {"deepseek-v3.1", "deepseek-v3"}, {"llama-3.3-70b", "llama-3.1-70b"},
      {"kimi-k2.5", "kimi-k2"},       {"llama-13b", "llama-2-13b"},     {"llama-70b", "llama-2-70b"},
      {"llama-7b", "llama-2-7b"},
  };
  auto found = same.find(name);
  return found == same.end() ? name : found->second;
}

// FNV-1a, 64 bits, folded: the same on every machine.
bool in_calibration_part(const std::string& setup) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (char c : setup) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return ((hash >> 32) ^ hash) % 2 == 0;
}

Result<std::vector<ServingCase>> read_cases(const CsvTable& table) {
  auto launched = [](std::vector<ServingCase> cases) {
    for (ServingCase& c : cases) apply_recipes(c, built_in_recipes());
    return cases;
  };
  if (table.has("silicon_ttft_ms") && table.has("backend")) return launched(read_silicon_cases(table));
  if (table.has("metric_kind") && table.has("engine_version")) return launched(read_published_cases(table));
  return invalid(
      "{} has the columns of no known form of serving results: neither backend and silicon_ttft_ms, nor "
      "engine_version and metric_kind; training results go to --training",
      table.name);
}

}  // namespace tessera::plan::serving
