// What every layer of one rank shares: the model, the work, the place of this rank and its groups.
#pragma once

#include <memory>

#include "comm/group.h"
#include "kernels/kernels.h"
#include "layout/layout.h"
#include "model/tensors.h"

namespace tessera::model {

// Groups of one rank; a group of one is always there, so code has no special case.
struct Groups {
  std::unique_ptr<Group> world;
  std::unique_ptr<Group> tp;
  std::unique_ptr<Group> pp;               // stages in order
  std::unique_ptr<Group> ep;               // replicas that exchange tokens
  std::unique_ptr<Group> replicas;         // same dense weights: gradients meet here
  std::unique_ptr<Group> fsdp;             // shards of the dense working weights
  std::unique_ptr<Group> dp;               // same shard of the dense working weights
  std::unique_ptr<Group> expert_replicas;  // the same three for expert weights
  std::unique_ptr<Group> expert_fsdp;
  std::unique_ptr<Group> expert_dp;
};

struct Context {
  ModelSpec spec;
  Work work;
  Layout layout;
  int64_t rank = 0;
  Coordinate at;
  Groups groups;
  kernels::RopeTable rope;

  bool exact() const { return work.numerics == Numerics::exact; }
  at::ScalarType dtype() const { return working_dtype(work.precision); }
  bool first_stage() const { return at.pp == 0; }
  bool last_stage() const { return at.pp == layout.pp - 1; }

  // T tokens of a micro-batch; this rank keeps a tp-th of them between tensor-parallel layers (sequence
  // parallelism).
  int64_t tokens() const { return work.micro_batch_tokens(); }
  int64_t local_tokens() const { return tokens() / layout.tp; }
  // Parts in which this rank sums over tokens, all of them or its own, and over the columns that tp splits.
  int64_t chunks() const { return exact() ? work.seq_chunks : layout.tp; }
  int64_t local_chunks() const { return chunks() / layout.tp; }
  int64_t local_blocks() const { return exact() ? work.tp_blocks / layout.tp : 1; }
  int64_t local_heads() const { return spec.heads / layout.tp; }
  int64_t local_kv_heads() const { return spec.kv_heads / layout.tp; }
  int64_t local_experts() const { return spec.moe.experts / layout.ep; }
};

// x itself, or rounded to another precision.
inline Tensor to_dtype(const Tensor& x, at::ScalarType dtype) {
  if (x.scalar_type() == dtype) return x;
  Tensor out = make(x.sizes(), dtype);
  kernels::convert(x, out);
  return out;
}

}  // namespace tessera::model
