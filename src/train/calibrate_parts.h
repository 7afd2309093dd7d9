// The parts of a calibration: each measures one thing and returns it or writes it into the cluster.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>

#include "plan/cluster.h"

namespace tessera::train {

// Memory as a training step meets it: not in the cache, because the rest of the model came by since its last
// use. Hands out pieces of a buffer larger than the caches, round and round.
class ColdMemory {
 public:
  explicit ColdMemory(at::Tensor values) : values_(std::move(values)) {}
  at::Tensor take(at::IntArrayRef shape);

 private:
  at::Tensor values_;  // [elements]
  int64_t next_ = 0;
};

class ColdOperands {
 public:
  explicit ColdOperands(Precision precision);
  at::Tensor take(at::IntArrayRef shape) { return values_.take(shape); }
  // Where a step writes what it reads much later: activations, gradients of weights.
  at::Tensor result(at::IntArrayRef shape) { return results_.take(shape); }
  at::Tensor gradient(at::IntArrayRef shape) { return gradients_.take(shape); }
  Precision precision() const { return precision_; }

 private:
  Precision precision_;
  ColdMemory values_, results_, gradients_;
};

// Median seconds of one product, as the trainer runs it: forward in the working precision, gradients in
// float32.
double product_seconds(plan::Product product, ColdOperands& operands, int64_t m, int64_t n, int64_t k,
                       double budget_s);
// Products of more than `largest` FLOP are taken to run at the rate of the next smaller one.
plan::GemmGrid measure_grid(plan::Product product, ColdOperands& operands, double largest, double budget_s);
plan::AttentionPoint measure_attention(ColdOperands& operands, int64_t head_dim, double budget_s);
// Seconds of a call that computes next to nothing: dispatch, checks, one allocation.
double kernel_overhead(double budget_s);
// Seconds per element of every operation, the cost of a call itself taken off.
std::map<plan::Op, double> measure_ops(ColdOperands& operands, double overhead_s, double budget_s);

// What several kernel threads of one process gain.
void measure_threads(plan::Cluster& cluster, double budget_s);
// What is left to each of several processes that compute at once.
void measure_sharing(plan::Cluster& cluster, double budget_s);
// Collectives over `ranks` ranks, as times of ranks with a core each: the planner shares cores itself.
Status measure_links(plan::Cluster& cluster, int64_t ranks, double budget_s);

}  // namespace tessera::train
