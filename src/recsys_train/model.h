// The dense part of a click model: from numbers and pooled embeddings to one logit for each row, and back.
//
//   dnn        top([bottom(numbers); embeddings])
//   dlrm       top([bottom(numbers); dot products of all pairs of bottom and embeddings]); the bottom ends in D
//   dcnv2      top(cross([bottom(numbers); embeddings]))
//   deepfm     linear + factorisation machine over embeddings + top([numbers; embeddings])
//   wide-deep  linear + top([numbers; embeddings])
// linear = sum of the slots' one-dimensional rows + weights of the numbers + bias. An empty bottom passes
// numbers on. Slots that are sequences are pooled here, by attention (sequence.h).
//
// Loss: mean binary cross-entropy over the batch, natural logarithm.
// Shapes: B rows, N numbers, S slots, D dimension, Q sequences; P places of pooled rows, S without sequences,
// of which each has as many as it is long. Errors: sizes that do not fit. Threads: one.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "recsys_train/sequence.h"

namespace tessera::recsys_train {

struct ModelOptions {
  std::string kind = "dnn";
  std::vector<int64_t> bottom, top = {256, 128};  // hidden sizes; the logit's layer comes by itself
  int64_t cross_layers = 3, cross_rank = 0;       // dcnv2
  std::vector<int64_t> attention = {36};          // hidden sizes of the attention over a sequence
  bool attention_softmax = false;                 // its weights add up to 1
};

// Whether this kind reads one-dimensional rows too. REQUIRES: a known kind.
bool has_linear_part(const std::string& kind);

class DenseModel {
 public:
  static Result<std::unique_ptr<DenseModel>> create(const ModelOptions& options, int64_t numbers, int64_t slots,
                                                    int64_t dim, uint64_t seed,
                                                    const std::vector<SequencePlace>& sequences = {});
  virtual ~DenseModel() = default;

  // Logits [B] of `numeric` [B, N], `pooled` [B, P, D], `wide` [B, S] (undefined without a linear part) and
  // `lengths` [B, Q] of sequences.
  at::Tensor forward(const at::Tensor& numeric, const at::Tensor& pooled, const at::Tensor& wide,
                     const at::Tensor& lengths = {});
  // Mean loss; gradients of the weights, and of what went in, for the last forward().
  struct Gradients {
    double loss = 0;
    at::Tensor pooled, wide;  // [B, P, D], [B, S]
  };
  Gradients backward(const at::Tensor& labels);

  Parameters& parameters() { return parameters_; }

 protected:
  virtual at::Tensor logits(const at::Tensor& numeric, const at::Tensor& pooled, const at::Tensor& wide) = 0;
  // From the gradient of the logits [B, 1].
  virtual void backward_from(const at::Tensor& gradient, Gradients& out) = 0;

  Parameters parameters_;

 private:
  std::optional<SequencePooling> sequences_;
  at::Tensor logits_;  // [B, 1]
};

}  // namespace tessera::recsys_train
