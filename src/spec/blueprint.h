// What can be planned: any transformer or hybrid, layer by layer, down to its weights. A ModelSpec is what our
// own trainer and server run; a Blueprint also describes what only others run (MLA, linear attention, Mamba,
// sinks, windows, latent experts), so that memory, time and cost can be predicted for it.
//
// Models repeat a handful of layers many times: `kinds` holds the distinct ones, `order` says which stands
// where. Everything derived (parameters, FLOPs, cache) is a sum over weights(); there is no second formula.
//
// Units: sizes are counts of elements; FLOPs count 2 per multiply-add. Threads: values, functions are
// reentrant.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/result.h"
#include "spec/inventory.h"

namespace tessera {

enum class MixerKind {
  none,
  attention,         // MHA, GQA, MQA
  mla,               // keys and values from a cached latent of kv_rank + rope_dim
  compressed,        // DeepSeek-V4: one shared key/value head, window plus compressed history
  linear_attention,  // gated delta rule: a state of key_dim x value_dim per head
  mamba2,            // state-space: a state of head_dim x state per head
};
const char* to_string(MixerKind kind);

// Mixes tokens. Fields of other kinds stay 0.
struct Mixer {
  MixerKind kind = MixerKind::none;
  int64_t heads = 0, kv_heads = 0;  // linear_attention: value heads, key heads; mamba2: heads, groups
  int64_t head_dim = 0;             // of a query and key (mla: nope_dim + rope_dim)
  int64_t v_head_dim = 0;           // of a value (mamba2: of a head's channel block)
  int64_t window = 0;               // tokens that a token sees, itself included; 0: all before it
  bool chunked = false;             // `window` is a chunk with fixed borders: half of it is seen on average
  bool qkv_bias = false, out_bias = false;
  bool output_gate = false;    // a second query-sized projection gates the output
  bool shared_kv = false;      // values are the keys: no value projection
  bool own_kv = true;          // false: reads the cache of an earlier layer, has no key or value projection
  int64_t vectors = 0;         // elements of norms of q and k, sinks, decay: too small to have a product
  int64_t q_rank = 0;          // mla, compressed: low-rank query, 0: full
  int64_t kv_rank = 0;         // mla
  int64_t nope_dim = 0;        // mla
  int64_t rope_dim = 0;        // mla
  int64_t out_rank = 0;        // compressed: low-rank output, per group of heads
  int64_t out_groups = 0;      // compressed
  int64_t compress_ratio = 0;  // compressed: tokens per entry of the history beyond the window, 0: none
  int64_t index_heads = 0;     // sparse selection: heads of the indexer, 0: every token is attended
  int64_t index_dim = 0;       // of one indexer head and of the indexer's cached key
  int64_t index_top_k = 0;     // tokens (compressed: entries) attended at most
  bool own_index = true;       // false: the selection of an earlier layer is used again
  int64_t state = 0;           // mamba2: state size
  int64_t conv_kernel = 0;     // mamba2, linear_attention
  bool operator==(const Mixer&) const = default;
};

enum class FfnKind { none, dense, moe };

struct Ffn {
  FfnKind kind = FfnKind::none;
  int64_t width = 0;    // dense: inner width
  bool gated = true;    // gate, up and down; else up and down
  bool biases = false;  // on every matrix, experts included
  int64_t experts = 0, top_k = 0;
  int64_t expert_width = 0;
  int64_t expert_hidden = 0;  // experts work on a latent of this size; 0: on the hidden size
  int64_t shared_width = 0;   // of all shared experts together, always active
  bool shared_gated = true;   // as `gated`, of the shared experts
  bool shared_gate = false;   // a scalar gate hidden -> 1 on the shared output
  bool router_bias = false;
  int64_t router_vectors = 0;  // other elements of the router: correction bias, scales
  bool operator==(const Ffn&) const = default;
};

struct Layer {
  Mixer mixer;
  Ffn ffn;
  int64_t norms = 2;             // of the hidden size
  int64_t residual_streams = 1;  // hyper-connections keep more than one
  int64_t residual_mixing = 0;   // parameters that mix the streams
  int64_t vectors = 0;           // other elements: layer scales
  bool operator==(const Layer&) const = default;
};

// How a tensor is stored in the files as published.
enum class WeightFormat { float32, bf16, fp8, nvfp4, mxfp4, int4 };
const char* to_string(WeightFormat format);
double bytes_per_weight(WeightFormat format);  // block scales included

struct Blueprint {
  std::string name;             // of the catalogue or of the file
  std::string architecture;     // Hugging Face's model_type
  bool by_fields_only = false;  // the architecture is not known by name: counts may be off by small vectors
  int64_t hidden = 0, vocab = 0, max_positions = 0;
  std::vector<Layer> kinds;       // distinct layers
  std::vector<int32_t> order;     // layer -> index into kinds
  std::vector<Layer> mtp;         // multi-token-prediction modules, not part of the counts below
  bool tied = false;              // the head is the embedding
  bool causal = true;             // false: an encoder, every token sees every token
  bool norm_bias = false;         // LayerNorm with weight and bias; else RMSNorm
  int64_t learned_positions = 0;  // rows of a learned position table, 0: none
  int64_t outer_norms = 1;        // final norm, norm after the embedding
  int64_t embedding_extra = 0;    // other elements beside the embedding: token types, projections
  int64_t head_extra = 0;         // other elements of the head: bias, dense layer of an encoder
  WeightFormat attention_format = WeightFormat::bf16, ffn_format = WeightFormat::bf16,
               expert_format = WeightFormat::bf16;  // ffn: dense and shared experts
  double kv_bytes_per_element = 2;                  // of the published cache format

  int64_t layers() const { return static_cast<int64_t>(order.size()); }
  const Layer& layer(int64_t index) const {
    return kinds[static_cast<size_t>(order[static_cast<size_t>(index)])];
  }
  bool is_moe() const;
  // Adds a layer at the end, sharing an equal kind.
  void append(const Layer& layer);
};

Blueprint blueprint(const ModelSpec& spec);

// A Hugging Face config.json of any architecture whose fields are understood; nested text_config too. Errors
// name the field, what stands there and what was expected; an architecture that layers of a Blueprint cannot
// describe (RWKV, Mamba-1, encoder-decoder) is refused by name.
Result<Blueprint> parse_blueprint(const nlohmann::json& config);
// `path`: a config.json or a directory that holds one.
Result<Blueprint> load_blueprint(const std::filesystem::path& path);

// ---- weights: the one source of everything below ----

enum class Part { embedding, attention, ffn, router, experts, shared_experts, norms, head };
const char* to_string(Part part);

// One weight [out, in] of a layer or of the ends. Weights of one `product` share their input and run as one
// GEMM of tokens x in x (sum of out); "" is no GEMM (norms, biases, convolutions, look-ups).
struct Weight {
  const char* name;     // "q", "gate", "down", ...
  const char* product;  // "qkv", "gate_up", ...
  Part part = Part::attention;
  int64_t out = 0, in = 1;
  Split split = Split::none;  // dim0: column-parallel, dim1: row-parallel; none: whole on each tp rank
  int64_t copies = 1;         // routed experts
  int64_t used = 1;           // copies that one token meets
  int64_t max_split = 0;      // tp ranks that can share it before parts repeat (kv heads), 0: any
  int64_t bias = 0;           // elements of the bias, of one copy
  bool stored = true;         // false: the product of a tied head, whose elements are the embedding's
  int64_t elements() const { return stored ? (out * in + bias) * copies : 0; }
  int64_t used_elements() const { return stored ? (out * in + bias) * used : 0; }
  bool is_product() const { return product[0] != '\0'; }
};
std::vector<Weight> weights(const Blueprint& model, const Layer& layer);
// Embedding, positions, norms outside the layers and head.
std::vector<Weight> outer_weights(const Blueprint& model);

struct ParameterTally {
  double total = 0;
  double active = 0;  // met by one token, the input embedding included
  double embedding = 0, attention = 0, ffn = 0, router = 0, experts = 0, shared_experts = 0, norms = 0,
         head = 0;
};
ParameterTally tally(const Blueprint& model);
ParameterTally tally(const Blueprint& model, const Layer& layer);
double mtp_parameters(const Blueprint& model);
// Bytes of the weights as published: experts and other products of layers in their formats, the rest in 2
// bytes.
double published_weight_bytes(const Blueprint& model);

// ---- work ----

// Whether a causal mask is credited: half of the square (NVIDIA from 25.09, Llama 3), or all of it (most
// before).
enum class MaskFlops { credited, full };

// Of one token of a sequence of `seq`, forward; backward is twice that.
double forward_flops_per_token(const Blueprint& model, int64_t seq, MaskFlops mask);
double product_flops_per_token(const Blueprint& model, const Layer& layer);
// Scores and weighted values, or the state's update and read; the indexer's scores included.
double mixing_flops_per_token(const Blueprint& model, const Layer& layer, int64_t seq, MaskFlops mask);
// Tokens (or compressed entries) that the last token of `seq` attends to.
double attended_tokens(const Mixer& mixer, double seq);
// Mean over the tokens of a sequence, in whole-square terms: seq / 2 for causal attention with the mask
// credited.
double mean_attended_tokens(const Blueprint& model, const Mixer& mixer, int64_t seq, MaskFlops mask);

// ---- cache ----

// Elements that one token adds to the cache of a layer while nothing is capped; of the indexer included.
double cache_elements_per_token(const Mixer& mixer);
// Elements that do not grow: states of linear attention and Mamba, convolution tails.
double state_elements(const Mixer& mixer);
// Whole cache of one sequence that holds `tokens`, windows and compression applied; states in `state_bytes`
// each.
double cache_bytes(const Blueprint& model, int64_t tokens, double bytes_per_element, double state_bytes = 4);
// Growth per token without any cap: 2 * layers * kv_heads * head_dim * bytes for GQA.
double cache_bytes_per_token(const Blueprint& model, double bytes_per_element);

}  // namespace tessera
