// Scalars of a step (loss, counts, norms, bytes) that all ranks add up in one collective, as integers, so that
// the sum does not depend on the order. Threads: one at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/group.h"
#include "core/exact_sum.h"
#include "model/failure.h"

namespace tessera::train {

// add() in one order on every rank, reduce(), then next() in the same order.
class ScalarSums {
 public:
  void add(const ExactSum& sum) { values_.insert(values_.end(), sum.limbs().begin(), sum.limbs().end()); }
  void add(int64_t value) { values_.push_back(value); }
  void reduce(Group& group) { model::check(group.all_reduce_sum(values_)); }
  double next_exact() {
    ExactSum sum;
    for (int64_t& limb : sum.limbs()) limb = next();
    return sum.value();
  }
  int64_t next() { return values_[at_++]; }

 private:
  std::vector<int64_t> values_;
  size_t at_ = 0;
};

}  // namespace tessera::train
