#include <algorithm>
#include <cmath>

#include "core/text.h"
#include "plan/catalogue.h"
#include "plan/validate/training_case.h"

// The model of a row, from its columns and from what its name says about the family.
namespace tessera::plan {
namespace {

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// Matrices of an FFN without a gate for which the parameters come out nearest to the published count.
bool is_gated_by_count(const RowReader& row, double published) {
  auto of = [&](const char* column) { return static_cast<double>(row.integer(column)); };
  double heads = (of("n_heads") + of("n_kv_heads")) * 2 * of("head_dim");
  auto total = [&](double matrices) {
    double layer = of("hidden") * heads + matrices * of("hidden") * of("ffn_hidden");
    return (of("n_layers") * layer + of("vocab") * of("hidden")) / 1e9;
  };
  return std::abs(total(3) - published) < std::abs(total(2) - published);
}

// Two matrices with GELU or squared ReLU, or three with a gate: as the family has it, else as the published
// number of parameters says, else with a gate, as everything later has.
bool is_gated(RowReader& row) {
  const std::string& name = row.text("model");
  for (const char* plain : {"GPT ", "GPT3", "MPT", "BLOOM", "OPT", "Nemotron", "MT-NLG", "GPT-NeoX"})
    if (contains(name, plain)) return false;
  for (const char* gated :
       {"lama", "LLaMA", "ixtral", "istral", "wen", "eep", "Moonlight", "GPT-OSS", "PaLM", "GPT-like"})
    if (contains(name, gated)) return true;
  double published = row.number("params_total_B").value_or(0);
  bool counted = published > 0 && row.integer("ffn_hidden") > 0 && row.integer("moe_experts") == 0;
  bool gated = !counted || is_gated_by_count(row, published);
  row.assume("ffn", fmt::format("{} gate{}", gated ? "with a" : "without a",
                                counted ? ", as the parameters count" : ""));
  return gated;
}

// Layers that DeepSeek-style models leave dense. A truncated copy keeps one.
int64_t first_dense_layers(const std::string& name) {
  if (contains(name, "DeepSeek-V3")) return 3;
  return contains(name, "deepseek") || contains(name, "Moonlight") ? 1 : 0;
}

Mixer mla_of(const RowReader& row) {
  // The sizes that DeepSeek-V2, V3 and Moonlight share; only Moonlight's queries have full rank.
  return {.kind = MixerKind::mla,
          .heads = row.integer("n_heads"),
          .kv_heads = row.integer("n_heads"),
          .head_dim = 192,
          .v_head_dim = 128,
          .q_rank = contains(row.text("model"), "Moonlight") ? 0 : 1536,
          .kv_rank = 512,
          .nope_dim = 128,
          .rope_dim = 64};
}

Mixer attention_of(const RowReader& row, bool gated) {
  int64_t head_dim = row.integer("head_dim");
  Mixer mixer{.kind = MixerKind::attention,
              .heads = row.integer("n_heads"),
              .kv_heads = row.integer("n_kv_heads"),
              .head_dim = head_dim,
              .v_head_dim = head_dim};
  mixer.qkv_bias = mixer.out_bias = !gated && !row.mentions("model", "Nemotron");
  return mixer;
}

Ffn ffn_of(const RowReader& row, bool gated) {
  return {.kind = FfnKind::dense, .width = row.integer("ffn_hidden"), .gated = gated};
}

Ffn experts_of(const RowReader& row) {
  Ffn ffn{.kind = FfnKind::moe,
          .experts = row.integer("moe_experts"),
          .top_k = row.integer("moe_topk"),
          .expert_width = row.integer("moe_ffn_hidden")};
  ffn.shared_width = row.integer("shared_experts") * ffn.expert_width;
  return ffn;
}

Status check_columns(const RowReader& row) {
  for (const char* column : {"n_layers", "hidden", "n_heads", "n_kv_heads", "vocab"})
    TESSERA_RETURN_IF_ERROR(row.positive(column, "the model's shape"));
  if (row.integer("moe_experts") == 0) TESSERA_RETURN_IF_ERROR(row.positive("ffn_hidden", "the model's shape"));
  if (row.empty("model")) return invalid("column model is empty: its family is unknown");
  return {};
}

Result<Blueprint> from_catalogue(std::string name) {
  name = lower_ascii(std::move(name));
  // Published under the total alone, catalogued with the active parameters behind it.
  if (name == "nemotron-3-ultra-550b") name += "-a55b";
  auto model = find_model(name);
  if (!model)
    return invalid("the columns do not describe the hybrid layers of {} and the catalogue has no such model",
                   name);
  return model;
}

}  // namespace

Result<Blueprint> blueprint_of_row(RowReader& row) {
  const std::string& name = row.text("model");
  // Layers that the columns cannot describe come from the catalogue.
  if (contains(name, "Nemotron-3") || contains(name, "DeepSeek-V4")) return from_catalogue(name);
  TESSERA_RETURN_IF_ERROR(check_columns(row));
  Blueprint model;
  bool gated = is_gated(row), mla = row.mentions("head_dim", "MLA");
  model.name = model.architecture = name;
  model.hidden = row.integer("hidden"), model.vocab = row.integer("vocab");
  model.max_positions = row.integer("seq_len");
  model.tied = (!gated && !contains(name, "Nemotron")) || contains(name, "PaLM");
  model.norm_bias = !gated;
  if (model.tied && !contains(name, "BLOOM")) model.learned_positions = model.max_positions;
  Layer layer{.mixer = mla ? mla_of(row) : attention_of(row, gated), .ffn = ffn_of(row, gated)};
  if (row.mentions("notes", "parallel attention/MLP")) layer.norms = 1;
  bool experts = row.integer("moe_experts") > 0;
  int64_t dense = experts ? first_dense_layers(name) : row.integer("n_layers");
  for (int64_t index = 0; index < row.integer("n_layers"); ++index) {
    layer.ffn = index < dense ? ffn_of(row, gated) : experts_of(row);
    if (index < dense && layer.ffn.width == 0) layer.ffn.width = 11264;  // Moonlight's first layer
    if (contains(name, "GPT-OSS")) {
      layer.mixer.window = index % 2 == 0 ? 128 : 0;
      layer.mixer.qkv_bias = layer.mixer.out_bias = layer.ffn.biases = true;
    }
    model.append(layer);
  }
  return model;
}

}  // namespace tessera::plan
