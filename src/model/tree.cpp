#include "model/tree.h"

#include <ATen/ops/empty_like.h>

#include "core/result.h"
#include "kernels/kernels.h"

namespace tessera::model {
namespace {

using at::Tensor;

// Largest power of two below n: the leaves under the left child of a root over n > 1 leaves.
int64_t left_leaves(int64_t n) {
  int64_t left = 1;
  while (left * 2 < n) left *= 2;
  return left;
}

}  // namespace

void tree_sum(int64_t n, Tensor& out, const std::function<void(int64_t, Tensor&)>& produce) {
  std::function<void(int64_t, int64_t, Tensor&)> walk = [&](int64_t first, int64_t count, Tensor& into) {
    if (count == 1) return produce(first, into);
    int64_t left = left_leaves(count);
    walk(first, left, into);
    Tensor right = at::empty_like(into);
    walk(first + left, count - left, right);
    kernels::add_into(into, right);
  };
  walk(0, n, out);
}

Tensor tree_sum(std::vector<Tensor> values) {
  TreeCounter counter;
  for (Tensor& value : values) counter.push(std::move(value));
  return counter.finish();
}

void TreeCounter::push(Tensor leaf) {
  ++leaves_;
  for (size_t level = 0;; ++level) {
    if (level == levels_.size()) levels_.emplace_back();
    if (!levels_[level].defined()) {
      levels_[level] = std::move(leaf);
      return;
    }
    kernels::add_into(levels_[level], leaf);
    leaf = std::move(levels_[level]);
    levels_[level] = Tensor();
  }
}

Tensor TreeCounter::finish() {
  TESSERA_REQUIRE(leaves_ > 0, "a tree without leaves");
  Tensor right;
  for (Tensor& node : levels_) {
    if (!node.defined()) continue;
    if (right.defined()) kernels::add_into(node, right);
    right = std::move(node);
    node = Tensor();
  }
  leaves_ = 0;
  return right;
}

int64_t TreeCounter::held_elements() const {
  int64_t elements = 0;
  for (const Tensor& node : levels_)
    if (node.defined()) elements += node.numel();
  return elements;
}

}  // namespace tessera::model
