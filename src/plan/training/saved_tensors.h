// What a layer keeps from forward to backward, one row per tensor, and which recomputation gives it up. Memory
// is a sum over these rows; no formula of a whole layer stands anywhere else.
//
// Rows are those of Megatron-Core and of the papers it grew from (Korthikanti et al. 2205.05198, section 4):
// inputs of norms, of products and of activations; queries, keys, values and the result of attention; without
// flash attention the matrix of scores; masks of dropout. Bytes are of one micro-batch on one rank.
#pragma once

#include <vector>

#include "plan/training/setup.h"

namespace tessera::plan {

struct SavedTensor {
  const char* name;
  double bytes = 0;
  bool dropped = false;  // by the modules recomputed: made again in backward
};

// Of a layer that is not recomputed in full. The first row is the block's input, which every mode keeps.
std::vector<SavedTensor> saved_by_layer(const TrainingSetup& setup, const Layer& layer);
double kept_bytes(const std::vector<SavedTensor>& tensors);
double dropped_bytes(const std::vector<SavedTensor>& tensors);

// Kept from forward to backward, and made again when the layer's backward begins. `full`: it keeps only its
// input.
struct LayerActivations {
  double kept = 0, recomputed = 0;
};
LayerActivations layer_activations(const TrainingSetup& setup, const Layer& layer, bool full);

// What the weight gradients of a layer need once its backward for the inputs has run: inputs of its products
// and gradients of their outputs, recomputed ones included. 32 s b h of a GPT layer (Qi et al. 2023,
// section 4.1).
double weight_gradient_bytes(const TrainingSetup& setup, const Layer& layer);

// Whether that layer of a chunk keeps only its input.
bool recomputed_in_full(const Recomputation& recompute, int64_t index_in_chunk);

// ---- sizes that rows and temporaries share; bytes ----
double token_share(const TrainingSetup& setup);         // tokens of a micro-batch on one cp rank
double hidden_bytes(const TrainingSetup& setup);        // tokens x hidden, whole
double hidden_shard_bytes(const TrainingSetup& setup);  // divided by tp where sequence-parallel
double element_bytes(const TrainingSetup& setup);       // 2, or 4 in float32
// Rows that the experts of one rank work on: top_k * tokens * etp / tp. Expert parallelism does not divide
// them: what leaves for other ranks comes back from them.
double expert_rows(const TrainingSetup& setup, const Ffn& ffn);

}  // namespace tessera::plan
