// Moves token rows to the ranks that own their experts and back (dropless).
//
// Each rank routes its own tokens (its chunks of its micro-batch). Rows sorted by (expert, chunk, token) go to
// the owner by all-to-all within ep; an expert's width is cut over tp, so the owner's tp ranks gather each
// other's rows and all compute on all of them. Back: partial sums over tp are reduce-scattered by the tree,
// rounded once, and returned.
//
// Rows on an owner lie by (tp place, ep place, expert, chunk, token), so the rows of one (micro-batch, chunk,
// expert), the leaves of its weights' gradients, are one contiguous segment.
#pragma once

#include <vector>

#include "model/context.h"

namespace tessera::model {

// Row ranges on the owner for every (expert, micro-batch of the ep group, chunk).
struct Segment {
  int64_t first = 0, count = 0;
};

class Dispatch {
 public:
  // expert[Tl, k] int32 of this rank's tokens. Exchanges counts with ep and tp.
  Dispatch(Context& context, const Tensor& expert);

  int64_t rows() const { return owner_rows_; }  // on this owner, all tp places
  const Tensor& row_of_slot() const {
    return row_of_slot_;
  }  // int64 [Tl, k]: row in sorted order of a (token, slot)
  const Tensor& token_of_row() const { return token_of_row_; }  // int64 [Tl * k]

  // sorted[Tl * k, D] -> rows on the owner [rows(), D].
  Tensor to_experts(const Tensor& sorted) const;
  // partial[rows(), D] float32 (node of the tree over blocks) -> sorted [Tl * k, D] in `dtype`.
  Tensor from_experts(Tensor partial, at::ScalarType dtype) const;

  // Rows of a local expert: all of it by (tp place, ep place), and of one leaf (ep place, chunk of the
  // micro-batch).
  std::vector<Segment> of_expert(int64_t expert) const;
  Segment leaf(int64_t expert, int64_t ep_place, int64_t chunk) const;

  // Tokens of this rank's whole micro-batch that chose each expert (all tp places), [experts].
  const std::vector<int64_t>& tokens_of_expert() const { return tokens_of_expert_; }

 private:
  void sort(const Tensor& expert);
  void exchange_counts();
  int64_t sent_to(int64_t owner) const;  // rows of this rank for an ep place

  // counts_[tp place][ep place][local expert][local chunk] on this owner
  int64_t& count(int64_t tp, int64_t ep, int64_t expert, int64_t chunk);
  int64_t count(int64_t tp, int64_t ep, int64_t expert, int64_t chunk) const {
    return const_cast<Dispatch*>(this)->count(tp, ep, expert, chunk);
  }

  Context& context_;
  int64_t top_k_ = 0;
  std::vector<int64_t> my_counts_;       // [expert][local chunk]
  std::vector<int64_t> counts_, first_;  // rows and first row, index as count()
  std::vector<int64_t> received_;        // rows per [tp place][ep place]
  std::vector<int64_t> tokens_of_expert_;
  Tensor row_of_slot_, token_of_row_;
  int64_t owner_rows_ = 0;
};

}  // namespace tessera::model
