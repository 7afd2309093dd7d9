// Blocks of models that are served and not trained here, from their weights: one file for each family.
#pragma once

#include "serve/layer.h"
#include "serve/named_weights.h"

namespace tessera::serve {

// REQUIRES of all: not Family::trained.
using LayerReader = Result<ServedLayer> (*)(NamedWeights& weights, const ServedSpec& spec, int64_t layer);
LayerReader layer_reader(Family family);

// Tensors outside the blocks; "" where the family has none.
struct OuterNames {
  std::string embedding, positions, final_norm, head;
};
OuterNames outer_names(Family family, const NamedWeights& weights);

// In front of every name, or not: files of the bare model leave it out.
std::string gpt2_prefix(const NamedWeights& weights);
std::string esm_prefix(const NamedWeights& weights);

bool has_deepseek_mtp(const NamedWeights& weights, const ServedSpec& spec);
Result<MtpLayer> deepseek_mtp(NamedWeights& weights, const ServedSpec& spec);  // REQUIRES: has_deepseek_mtp()
Result<ServedLayer> deepseek_layer(NamedWeights& weights, const ServedSpec& spec, int64_t layer);
Result<ServedLayer> esm_layer(NamedWeights& weights, const ServedSpec& spec, int64_t layer);
Result<ServedLayer> gpt2_layer(NamedWeights& weights, const ServedSpec& spec, int64_t layer);
Result<ServedLayer> gpt_oss_layer(NamedWeights& weights, const ServedSpec& spec, int64_t layer);

}  // namespace tessera::serve
