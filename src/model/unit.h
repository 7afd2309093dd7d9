// A unit is what FSDP gathers at once: the dense tensors of a block, its experts, the embedding, the head. Its
// tensors lie back to back in one flat buffer in inventory order, so that q, k, v and gate, up are also one
// fused view each.
//
// With R replicas of which F shard the working weights (and R / F hold equal shards):
//   working  elements / F   in the working precision, kept; the whole unit when F == 1
//   full     elements       gathered before use, freed after; the same memory as `working` when F == 1
//   master, moments  elements / R  float32: this rank's slice; with float32 work the master is a part of
//   `working`
// The slice of replica j is number (j mod F) * (R / F) + j / F, so that slices of one shard are neighbours.
#pragma once

#include <string>
#include <vector>

#include "layout/extents.h"
#include "model/context.h"

namespace tessera::model {

// One tensor of a unit: the box of the whole tensor that tp leaves to this rank.
struct UnitTensor {
  TensorSpec spec;
  Extent box;
  int64_t offset = 0;  // in the flat unit
  int64_t elements = 0;
  bool primary =
      true;  // false: another rank of this unit's tp or pp group holds the same values and counts them
};

// The ranks a unit's replicas live on.
struct UnitGroups {
  Group* replicas;
  Group* fsdp;
  Group* dp;
};

class Unit {
 public:
  Unit(Context& context, std::string name, std::vector<UnitTensor> tensors, UnitGroups groups);

  const std::string& name() const { return name_; }
  const std::vector<UnitTensor>& tensors() const { return tensors_; }
  int64_t elements() const { return elements_; }  // with padding
  int64_t slice_elements() const { return elements_ / replicas(); }
  int64_t replicas() const { return groups_.replicas->size(); }
  int64_t slice_of(int64_t replica) const;  // number of the slice that a replica owns
  int64_t slice_begin() const { return slice_of(groups_.replicas->rank()) * slice_elements(); }
  bool sharded() const { return groups_.fsdp->size() > 1; }
  UnitGroups groups() const { return groups_; }

  // Starts the gather of the weights; acquire() waits for it; release() frees them. Nested use is counted.
  void prefetch();
  void acquire();
  void release();

  // Views of the gathered weights, in file shape of the local box. REQUIRES: acquired.
  Tensor weight(Role role, int64_t expert = -1) const;
  // Several neighbours as one matrix: rows of first up to and including those of last.
  Tensor fused(Role first, Role last, int64_t expert = -1) const;
  // The same places in a flat buffer of this unit's size, such as its gradient.
  Tensor view(const Tensor& flat, Role role, int64_t expert = -1) const;
  Tensor fused_view(const Tensor& flat, Role first, Role last, int64_t expert = -1) const;

  // This rank's slice. Set master, then publish(): rounds it into the working weights and shares them among
  // replicas.
  Tensor master, moment1, moment2;
  Tensor working_slice() const;  // where the rounded master goes
  void publish();
  int64_t weight_bytes() const { return working_.nbytes(); }
  int64_t optimizer_bytes() const;  // moments, and the master where it is not part of the weights

 private:
  const UnitTensor& find(Role role, int64_t expert) const;

  Context& context_;
  std::string name_;
  std::vector<UnitTensor> tensors_;
  UnitGroups groups_;
  int64_t elements_ = 0;
  Tensor working_, full_;
  int users_ = 0;
  Pending gather_;
};

// All units of this rank, in the order of their use.
struct Units {
  std::vector<std::unique_ptr<Unit>> all;
  Unit* embedding = nullptr;          // first stage
  std::vector<Unit*> dense, experts;  // by layer - first layer of the stage; experts null in dense layers
  Unit* final_norm = nullptr;         // last stage
  Unit* head = nullptr;               // last stage; the embedding unit itself when tied and pp == 1
};
Units make_units(Context& context);

}  // namespace tessera::model
