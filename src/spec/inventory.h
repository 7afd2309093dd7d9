// Every tensor of a model under the name it has in Hugging Face's files: one source for planner, trainer,
// checkpoint, snapshot, reshard, server and hash.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "spec/model_spec.h"

namespace tessera {

// How tensor parallelism cuts a weight [out, in]: column-parallel by rows of the file's tensor (dim 0),
// row-parallel by its columns (dim 1). `vocab` is dim 0 of the vocabulary, padded to a multiple of tp_blocks
// (padding is never stored).
enum class Split { none, dim0, dim1, vocab };

// What the tensor is for; with layer and expert it identifies it.
enum class Role {
  embedding,
  attention_norm,
  q,
  k,
  v,
  q_norm,
  k_norm,
  o,
  ffn_norm,
  router,
  gate,
  up,
  down,
  final_norm,
  head,
};

struct TensorSpec {
  std::string name;  // Hugging Face's
  Role role;
  int64_t layer = -1;          // -1: outside the blocks
  int64_t expert = -1;         // -1: not an expert's
  std::vector<int64_t> shape;  // whole tensor
  Split split = Split::none;
  int uses = 1;  // 2: a tied embedding

  int64_t elements() const;
  bool decays() const { return shape.size() > 1; }  // weight decay skips norms
};

// In a fixed order: embedding, blocks from 0 (dense tensors, then experts from 0: gate, up, down), final norm,
// head (unless tied).
std::vector<TensorSpec> inventory(const ModelSpec& spec);

struct ParameterCount {
  int64_t total = 0;
  int64_t active = 0;  // used by one token: top_k of the experts
};
ParameterCount count_parameters(const ModelSpec& spec);

// Model FLOPs of one token in a sequence of `seq` tokens, forward pass: 2 per multiply-add of every matrix the
// token meets (top_k experts, the head, not the embedding) plus causal attention, 4 * heads * head_dim * seq
// / 2. Backward is twice that.
double forward_flops_per_token(const ModelSpec& spec, int64_t seq);

}  // namespace tessera
