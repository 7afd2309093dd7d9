// What the server runs: the models that train here, and those that are only served. Sizes are counts of
// elements. Threads: values.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "kernels/kv_pages.h"
#include "kernels/served_layers.h"
#include "spec/spec.h"

namespace tessera::serve {

// Rotary embedding for longer contexts (YaRN, Peng and others 2023): fast waves are kept, slow ones are
// interpolated, and what was rotated is scaled.
struct YarnSpec {
  double factor = 1, beta_fast = 32, beta_slow = 1;
  double attention_factor = 1;  // of cosines and sines
  int64_t original_max_positions = 4096;
  bool truncate = true;  // the borders between fast and slow are whole numbers
};

// Attention over a latent vector (MLA): a token's key of every head comes from kv_rank elements and rope_dim
// rotated ones, and those are what the cache holds.
struct LatentSpec {
  int64_t q_rank = 0;  // of queries; 0: they come from the hidden state itself
  int64_t kv_rank = 0, nope_dim = 0, rope_dim = 0, v_dim = 0;
  bool interleaved = true;  // neighbours are rotated together, else halves
  double score_factor = 1;  // of scores, beside 1 / sqrt(nope_dim + rope_dim)
};

enum class Family { trained, gpt_oss, deepseek, gpt2, esm };

struct ServedSpec : ModelSpec {
  ServedSpec() = default;
  explicit ServedSpec(const ModelSpec& trained) : ModelSpec(trained) {}

  Family family = Family::trained;
  std::vector<int64_t>
      windows;  // of each layer: positions that a token sees, its own included; 0 or empty: all
  kernels::Activation activation;
  std::optional<YarnSpec> yarn;
  std::optional<LatentSpec> latent;
  std::optional<kernels::GroupRouting> routing;  // else: softmax, the best of all experts
  bool rotary = true;                            // else positions have a table of their own
  bool encoder = false;                          // every token sees its whole sequence, and there is no head
  // >= 0: embeddings are scaled by 0.88 over the share of tokens that are not this one, which is zero itself
  // (token dropout of ESM-2).
  int64_t mask_token = -1;
  int64_t mtp_layers = 0;  // multi-token-prediction layers of the checkpoint, behind its blocks
  int64_t shared_ffn = 0;  // inner width of what every token meets beside its experts

  int64_t window(int64_t layer) const { return windows.empty() ? 0 : windows[static_cast<size_t>(layer)]; }
  // Keys and values of one layer on one of `tp` ranks.
  kernels::KvShape kv_shape(kernels::KvType type, int64_t block_tokens, int64_t tp) const;
  kernels::RopeTable rope_table(std::span<const float> divisors) const;  // divisors: of frequencies, or empty
};

// A Hugging Face config.json. Errors: an architecture that is not served, a field that is missing, malformed or
// asks for what is not served; names it.
Result<ServedSpec> parse_served_spec(const nlohmann::json& config);
// Of a directory, a config.json, or a GGUF file.
Result<ServedSpec> load_served_spec(const std::filesystem::path& model);

}  // namespace tessera::serve
