#include "serve/served_families.h"

#include <map>

namespace tessera::serve {

LayerReader layer_reader(Family family) {
  static const std::map<Family, LayerReader> readers = {{Family::gpt_oss, gpt_oss_layer},
                                                        {Family::deepseek, deepseek_layer},
                                                        {Family::gpt2, gpt2_layer},
                                                        {Family::esm, esm_layer}};
  return readers.at(family);
}

std::string gpt2_prefix(const NamedWeights& weights) {
  return weights.has("wte.weight") ? "" : "transformer.";
}

std::string esm_prefix(const NamedWeights& weights) {
  return weights.has("embeddings.word_embeddings.weight") ? "" : "esm.";
}

OuterNames outer_names(Family family, const NamedWeights& weights) {
  if (family == Family::gpt2) {
    const std::string prefix = gpt2_prefix(weights);
    return {.embedding = prefix + "wte.weight",
            .positions = prefix + "wpe.weight",
            .final_norm = prefix + "ln_f",
            .head = "lm_head.weight"};
  }
  if (family == Family::esm) {
    const std::string prefix = esm_prefix(weights);
    return {.embedding = prefix + "embeddings.word_embeddings.weight",
            .positions = "",
            .final_norm = prefix + "encoder.emb_layer_norm_after",
            .head = ""};
  }
  return {.embedding = "model.embed_tokens.weight",
          .positions = "",
          .final_norm = "model.norm",
          .head = "lm_head.weight"};
}

}  // namespace tessera::serve
