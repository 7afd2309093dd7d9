// What a model is, read from a Hugging Face config.json: the one description that planner, trainer, checkpoints
// and server share. Sizes are counts of elements, never bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera {

enum class Architecture { llama, qwen3, mixtral, qwen3_moe };
const char* to_string(Architecture architecture);  // Hugging Face's model_type

// Rotary embedding with the rotate-half pairing of Hugging Face. Scaling: Llama 3.1 (rope_type "llama3").
struct RopeSpec {
  struct Llama3 {
    double factor = 8, low_freq_factor = 1, high_freq_factor = 4;
    int64_t original_max_positions = 8192;
  };
  double theta = 10000;
  std::optional<Llama3> llama3;
};

// Inverse frequencies, head_dim / 2 of them, after scaling; computed in float64, rounded once to float32
// the way Hugging Face does (float32 arithmetic on theta^(-2i/d)).
std::vector<float> inverse_frequencies(const RopeSpec& rope, int64_t head_dim);

// Mixture of experts in place of the dense FFN. experts == 0: the model is dense.
struct MoeSpec {
  int64_t experts = 0;
  int64_t top_k = 0;
  int64_t ffn = 0;                    // inner width of one expert
  bool normalize_top_k = true;        // chosen probabilities are scaled to sum to one
  double aux_loss_coefficient = 0;    // weight of the load-balancing loss
  std::vector<int64_t> dense_layers;  // layers that keep a dense FFN, sorted
};

struct ModelSpec {
  Architecture architecture = Architecture::llama;
  int64_t layers = 0, hidden = 0, ffn = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t vocab = 0, max_positions = 0;
  double norm_eps = 1e-5;
  double init_range = 0.02;  // standard deviation of fresh weights
  RopeSpec rope;
  MoeSpec moe;
  bool qk_norm = false;  // RMSNorm over each head of q and k, before RoPE
  bool tied = false;     // the head is the embedding
  std::optional<int64_t> bos, eos;

  bool is_moe(int64_t layer) const;
};

// Errors: unknown architecture (names the known ones), missing or malformed fields (names the field and its
// value).
Result<ModelSpec> parse_model_spec(const nlohmann::json& config);
// `path` is a config.json or a directory that holds one.
Result<ModelSpec> load_model_spec(const std::filesystem::path& path);
// The config.json that Hugging Face transformers reads back to the same model.
nlohmann::json to_config_json(const ModelSpec& spec, const std::string& torch_dtype);

}  // namespace tessera
