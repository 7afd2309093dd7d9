// What the trainer keeps from forward to backward, and the temporaries of each piece of a block: one row per
// tensor of src/model, so that the tables can be held against the allocator's count line by line. Memory per
// stage, in-flight slots and recomputation all read them.
#pragma once

#include <vector>

#include "plan/shapes.h"

namespace tessera::plan {

struct KeptTensor {
  const char* name;
  double elements;  // on one rank, one layer, one micro-batch
  double bytes_per_element;
  double bytes() const { return elements * bytes_per_element; }
};
double total_bytes(const std::vector<KeptTensor>& tensors);

// Kept by one block without recomputation: its input x first, then what attention keeps, then the FFN's.
std::vector<KeptTensor> kept_by_attention(const ModelSpec& model, const Work& work, const Layout& layout);
std::vector<KeptTensor> kept_by_ffn(const ModelSpec& model, const Work& work, const Layout& layout,
                                    int64_t layer);
double block_input_bytes(const ModelSpec& model, const Work& work, const Layout& layout);
// Tokens, targets, positions and document starts of a micro-batch.
double batch_bytes(const Work& work);

// Bytes live at the peak of each piece, beside what is kept, gathered weights and the gradient leaf of the
// unit.
struct Temporaries {
  double attention_forward = 0, ffn_forward = 0, attention_backward = 0, ffn_backward = 0;
};
Temporaries block_temporaries(const ModelSpec& model, const Work& work, const Layout& layout, int64_t layer);

// The head's forward and backward run as one: before the gradient leaf is handed over (`with_leaf`, the leaf
// itself not counted) and after.
struct HeadTemporaries {
  double with_leaf = 0, after = 0;
};
HeadTemporaries head_temporaries(const ModelSpec& model, const Work& work, const Layout& layout);
double embedding_backward_temporaries(const ModelSpec& model, const Work& work, const Layout& layout);

}  // namespace tessera::plan
