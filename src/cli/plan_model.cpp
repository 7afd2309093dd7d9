// tessera plan model: what a model is, as the planner sees it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/number_checks.h"
#include "cli/result_output.h"
#include "plan/catalogue.h"
#include "plan/recommenders.h"

namespace tessera::cli {
namespace {

struct ModelOptions {
  std::vector<std::string> models;
  int64_t seq = 4096;
  std::string json;
};

nlohmann::json parameters_json(const Blueprint& model) {
  ParameterTally sum = tally(model);
  return {{"total", sum.total},
          {"active", sum.active},
          {"embedding", sum.embedding},
          {"attention", sum.attention},
          {"ffn", sum.ffn},
          {"router", sum.router},
          {"experts", sum.experts},
          {"shared_experts", sum.shared_experts},
          {"norms", sum.norms},
          {"head", sum.head},
          {"mtp", mtp_parameters(model)}};
}

std::map<std::string, int64_t> mixer_counts(const Blueprint& model) {
  std::map<std::string, int64_t> counts;
  for (int32_t kind : model.order) ++counts[to_string(model.kinds[static_cast<size_t>(kind)].mixer.kind)];
  return counts;
}

nlohmann::json to_json(const Blueprint& model, int64_t seq) {
  return {{"name", model.name},
          {"architecture", model.architecture},
          {"by_fields_only", model.by_fields_only},
          {"layers", model.layers()},
          {"mixers", mixer_counts(model)},
          {"hidden", model.hidden},
          {"vocab", model.vocab},
          {"tied", model.tied},
          {"causal", model.causal},
          {"parameters", parameters_json(model)},
          {"weight_format",
           {{"attention", to_string(model.attention_format)},
            {"ffn", to_string(model.ffn_format)},
            {"experts", to_string(model.expert_format)}}},
          {"weight_bytes", published_weight_bytes(model)},
          {"seq_tokens", seq},
          {"forward_flops_per_token", forward_flops_per_token(model, seq, MaskFlops::credited)},
          {"forward_flops_per_token_full_mask", forward_flops_per_token(model, seq, MaskFlops::full)},
          {"cache_bytes_per_token", cache_bytes_per_token(model, 2)},
          {"cache_bytes_of_sequence", cache_bytes(model, seq, 2)}};
}

std::string mixers_text(const Blueprint& model) {
  std::string out;
  for (const auto& [name, count] : mixer_counts(model))
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", count, name);
  return out;
}

// 405853388800 -> "405.853 G".
std::string scaled(double value) {
  constexpr const char* kUnits[] = {"", "k", "M", "G", "T", "P"};
  size_t unit = 0;
  while (value >= 1000 && unit < 5) value /= 1000, ++unit;
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 3, kUnits[unit]);
}

std::string text(const Blueprint& model, int64_t seq) {
  ParameterTally sum = tally(model);
  std::string out =
      model.by_fields_only ? "note: an architecture not known by name, read by its fields alone\n" : "";
  out += fmt::format("{}: {}, {} layers ({}), hidden {}, vocabulary {}{}\n", model.name, model.architecture,
                     model.layers(), mixers_text(model), model.hidden, model.vocab,
                     model.tied ? ", tied head" : "");
  out +=
      fmt::format("  parameters            {}, {} active per token\n", scaled(sum.total), scaled(sum.active));
  const std::pair<const char*, double> parts[] = {{"embedding", sum.embedding},
                                                  {"attention", sum.attention},
                                                  {"dense ffn", sum.ffn},
                                                  {"experts", sum.experts},
                                                  {"shared experts", sum.shared_experts},
                                                  {"router", sum.router},
                                                  {"norms", sum.norms},
                                                  {"head", sum.head},
                                                  {"mtp, apart", mtp_parameters(model)}};
  for (const auto& [name, elements] : parts)
    if (elements > 0) out += fmt::format("    {:<20}{}\n", name, scaled(elements));
  out += fmt::format("  weights as published  {}B ({} attention, {} ffn, {} experts)\n",
                     scaled(published_weight_bytes(model)), to_string(model.attention_format),
                     to_string(model.ffn_format), to_string(model.expert_format));
  out += fmt::format("  forward, {} tokens  {}FLOP/token (mask credited), {}FLOP/token (not)\n", seq,
                     scaled(forward_flops_per_token(model, seq, MaskFlops::credited)),
                     scaled(forward_flops_per_token(model, seq, MaskFlops::full)));
  out += fmt::format("  cache in bf16         {}B per token, {}B for {} tokens\n",
                     scaled(cache_bytes_per_token(model, 2)), scaled(cache_bytes(model, seq, 2)), seq);
  return out;
}

nlohmann::json to_json(const Recommender& model) {
  return {{"name", model.name},
          {"tables", model.tables.size()},
          {"rows", embedding_rows(model)},
          {"parameters",
           {{"total", embedding_parameters(model) + dense_parameters(model)},
            {"embedding", embedding_parameters(model)},
            {"dense", dense_parameters(model)}}},
          {"lookups_per_sample", lookups_per_sample(model)},
          {"dense_flops_per_sample", dense_flops_per_sample(model)}};
}

std::string text(const Recommender& model) {
  return fmt::format(
      "{}: recommender, {} tables of {}rows\n  embeddings            {}\n  dense network         {}\n"
      "  lookups per sample    {}\n  forward               {}FLOP/sample\n",
      model.name, model.tables.size(), scaled(embedding_rows(model)), scaled(embedding_parameters(model)),
      scaled(dense_parameters(model)), lookups_per_sample(model), scaled(dense_flops_per_sample(model)));
}

bool is_recommender(const std::string& name) {
  auto names = plan::recommender_names();
  return std::count(names.begin(), names.end(), name) > 0;
}

Status run(const ModelOptions& options) {
  nlohmann::json list = nlohmann::json::array();
  for (const std::string& name : options.models) {
    if (is_recommender(name)) {
      TESSERA_ASSIGN_OR_RETURN(Recommender recommender, plan::find_recommender(name));
      list.push_back(to_json(recommender));
      std::fputs(text(recommender).c_str(), text_output(options.json));
      continue;
    }
    TESSERA_ASSIGN_OR_RETURN(Blueprint model, plan::find_model(name));
    list.push_back(to_json(model, options.seq));
    std::fputs(text(model, options.seq).c_str(), text_output(options.json));
  }
  return write_json(options.json, {{"models", list}});
}

}  // namespace

void add_plan_model(CLI::App& plan_command) {
  auto options = std::make_shared<ModelOptions>();
  CLI::App* command = plan_command.add_subcommand("model", "Parameters, FLOPs and cache of a model");
  command->add_option("models", options->models, "Names in the catalogue, or paths of config.json files")
      ->required();
  command->add_option("--seq", options->seq, "Tokens of a sequence")
      ->capture_default_str()
      ->check(positive_number());
  command->add_option("--json", options->json, "Write the result as JSON; - for standard output");
  command->footer(
      "Examples:\n"
      "  tessera plan model deepseek-v3\n"
      "  tessera plan model ./config.json --seq 131072 --json -");
  command->callback([options] {
    if (Status status = run(*options); !status) report_error(status.error());
  });
}

}  // namespace tessera::cli
