// Every sum in exact mode follows one binary tree over global leaf indices:
//   node(l, i) = node(l-1, 2i) + node(l-1, 2i+1), an index past the end passes through.
// Two ways to walk it that give the same bits: tree_sum() when leaves can be produced on demand, TreeCounter
// when they arrive one after another (a binary counter: log2(leaves) + 1 buffers at most).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace tessera::model {

// out = tree over leaves [0, n). produce(i, into) overwrites `into` (float32, like out) with leaf i.
void tree_sum(int64_t n, at::Tensor& out, const std::function<void(int64_t, at::Tensor&)>& produce);

// The tree over values; adds in place, so all but the result are used up.
at::Tensor tree_sum(std::vector<at::Tensor> values);

// Leaves are pushed in ascending order of index; each push owns its tensor.
class TreeCounter {
 public:
  void push(at::Tensor leaf);
  // The root over all leaves pushed; the counter is empty afterwards. REQUIRES: at least one push.
  at::Tensor finish();
  bool empty() const { return leaves_ == 0; }
  int64_t held_elements() const;

 private:
  int64_t leaves_ = 0;
  std::vector<at::Tensor> levels_;  // levels_[l] defined: a node of 2^l leaves waits for its right sibling
};

}  // namespace tessera::model
