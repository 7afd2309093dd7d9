// Behaviour sequences: a row names what its user did, oldest first, and what is scored now (the target). How
// much each of the former says about the latter is learned, by the attention of the Deep Interest Network (Zhou
// et al., KDD 2018): weight of a behaviour k for a target q = MLP([q; k; q - k; q * k]), hidden layers with
// ReLU; the weighted sum of behaviours stands for the sequence. As in the paper weights need not add up to 1;
// with `softmax` they do.
//
// Shapes: B rows, L longest sequence, D dimension. Threads: one.
#pragma once

#include "recsys_train/layers.h"

namespace tessera::recsys_train {

// Where a sequence lies among the pooled rows of a batch.
struct SequencePlace {
  int64_t slot = 0, target = 0;  // slots of the data
  int64_t length = 0;            // L: shorter ones are filled up with anything
};

class SequenceAttention {
 public:
  SequenceAttention(Parameters& parameters, const std::string& name, int64_t dim,
                    const std::vector<int64_t>& hidden, bool softmax);
  // `lengths` [B]. Rows without behaviours give zeros.
  Tensor forward(const Tensor& keys_BLD, const Tensor& target_BD, const Tensor& lengths);  // -> [B, D]
  // Of what went into the last forward(); those of rows past the end of a sequence mean nothing.
  struct Gradients {
    Tensor keys, target;
  };
  Gradients backward(const Tensor& gradient_BD);

 private:
  bool softmax_;
  Mlp mlp_;
  Tensor keys_, target_, mask_, weights_;
};

// The sequences of a model: between pooled rows as a worker gives them [B, P, D], where a sequence has L places
// in a row, and one row for each slot [B, S, D].
class SequencePooling {
 public:
  SequencePooling(Parameters& parameters, std::vector<SequencePlace> places, int64_t slots, int64_t dim,
                  const std::vector<int64_t>& hidden, bool softmax);
  Tensor forward(const Tensor& rows_BPD, const Tensor& lengths_BQ);
  Tensor backward(const Tensor& gradient_BSD);

 private:
  int64_t places_of(int64_t slot) const;
  std::vector<SequencePlace> places_;
  std::vector<int64_t> first_;     // place of each slot
  std::vector<int64_t> sequence_;  // of each slot: which of `places_`; -1: none
  std::vector<SequenceAttention> attention_;
};

}  // namespace tessera::recsys_train
