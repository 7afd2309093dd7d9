#include "spec/blueprint.h"

#include <algorithm>

namespace tessera {

const char* to_string(MixerKind kind) {
  switch (kind) {
    case MixerKind::none:
      return "none";
    case MixerKind::attention:
      return "attention";
    case MixerKind::mla:
      return "mla";
    case MixerKind::compressed:
      return "compressed";
    case MixerKind::linear_attention:
      return "linear_attention";
    case MixerKind::mamba2:
      return "mamba2";
  }
  return "unknown";
}

const char* to_string(WeightFormat format) {
  switch (format) {
    case WeightFormat::float32:
      return "float32";
    case WeightFormat::bf16:
      return "bf16";
    case WeightFormat::fp8:
      return "fp8";
    case WeightFormat::nvfp4:
      return "nvfp4";
    case WeightFormat::mxfp4:
      return "mxfp4";
    case WeightFormat::int4:
      return "int4";
  }
  return "unknown";
}

// Scales: nvfp4 one byte per 16 weights, mxfp4 one byte per 32, int4 two bytes per 32 (the group size of the
// published Kimi K2 files); those of fp8 (four bytes per 128 x 128) are left out.
double bytes_per_weight(WeightFormat format) {
  switch (format) {
    case WeightFormat::float32:
      return 4;
    case WeightFormat::bf16:
      return 2;
    case WeightFormat::fp8:
      return 1;
    case WeightFormat::nvfp4:
      return 0.5 + 1.0 / 16;
    case WeightFormat::mxfp4:
      return 0.5 + 1.0 / 32;
    case WeightFormat::int4:
      return 0.5 + 2.0 / 32;
  }
  return 2;
}

const char* to_string(Part part) {
  switch (part) {
    case Part::embedding:
      return "embedding";
    case Part::attention:
      return "attention";
    case Part::ffn:
      return "ffn";
    case Part::router:
      return "router";
    case Part::experts:
      return "experts";
    case Part::shared_experts:
      return "shared_experts";
    case Part::norms:
      return "norms";
    case Part::head:
      return "head";
  }
  return "unknown";
}

bool Blueprint::is_moe() const {
  return std::any_of(kinds.begin(), kinds.end(),
                     [](const Layer& layer) { return layer.ffn.kind == FfnKind::moe; });
}

void Blueprint::append(const Layer& layer) {
  auto found = std::find(kinds.begin(), kinds.end(), layer);
  order.push_back(static_cast<int32_t>(found - kinds.begin()));
  if (found == kinds.end()) kinds.push_back(layer);
}

Blueprint blueprint(const ModelSpec& spec) {
  Blueprint model;
  model.name = model.architecture = to_string(spec.architecture);
  model.hidden = spec.hidden, model.vocab = spec.vocab, model.max_positions = spec.max_positions;
  model.tied = spec.tied;
  Layer layer;
  layer.mixer = {.kind = MixerKind::attention,
                 .heads = spec.heads,
                 .kv_heads = spec.kv_heads,
                 .head_dim = spec.head_dim,
                 .v_head_dim = spec.head_dim,
                 .vectors = spec.qk_norm ? 2 * spec.head_dim : 0};
  for (int64_t index = 0; index < spec.layers; ++index) {
    layer.ffn = {.kind = FfnKind::dense, .width = spec.ffn};
    if (spec.is_moe(index))
      layer.ffn = {.kind = FfnKind::moe,
                   .experts = spec.moe.experts,
                   .top_k = spec.moe.top_k,
                   .expert_width = spec.moe.ffn};
    model.append(layer);
  }
  return model;
}

}  // namespace tessera
