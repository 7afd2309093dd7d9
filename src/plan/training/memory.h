// Peak memory of every stage of a training run on GPUs: whether it fits is decided before a cluster is rented.
//
// The peak is the largest of the moments of a step: states and activations in flight (from the schedule) stay,
// and on top comes what the moment needs: the backward of one layer (with what it recomputes), the loss and its
// gradient on the stage with the head, units gathered by FSDP. Beside it stand buffers that live for the whole
// run.
//
// allocated: what torch.cuda.max_memory_allocated counts. reserved: with the allocator's fragmentation
// (max_memory_reserved). device: with CUDA context and NCCL (nvidia-smi). Constants with their sources:
// data/constants/memory.toml. Bytes throughout. Threads: all functions are reentrant.
#pragma once

#include <vector>

#include "plan/training/setup.h"

namespace tessera::plan {

struct TrainingMemory {
  double parameters = 0, gradients = 0, optimizer = 0;
  double activations = 0;  // kept from forward to backward, all micro-batches in flight
  double gathered = 0;     // FSDP: parameters gathered for use, gradients not yet scattered
  double workspace = 0;    // temporaries of the moment: recomputed layer, gradients of activations, loss
  double buffers = 0;      // placeholders of weight gradients, all-gather and reduce buckets
  double reserved = 0, device = 0;
  double required = 0;  // the least device memory with which it runs: a tight allocator frees what it caches
  double allocated() const {
    return parameters + gradients + optimizer + activations + gathered + workspace + buffers;
  }
};

// Of each stage. REQUIRES: validate(setup) holds.
std::vector<TrainingMemory> training_memory(const TrainingSetup& setup);
const TrainingMemory& fullest(const std::vector<TrainingMemory>& stages);  // by required
// The figure that the framework's own log prints: Megatron and FSDP 1 the peak allocated, torchtitan the peak
// reserved, others the whole device.
double reported_bytes(const TrainingSetup& setup, const TrainingMemory& memory);
// Error: resource_exhausted, naming stage, need and capacity, when the fullest stage does not fit.
Status check_fits(const TrainingSetup& setup, double device_bytes);
// The mildest of the recomputations that recipes use (none, selective modules, full of ever more layers) with
// which it fits; its own when it fits as it is. Error: nothing fits.
Result<Recomputation> least_recomputation(const TrainingSetup& setup, double device_bytes);

// Activations of all micro-batches in flight on a stage, workspace not counted.
double activation_bytes(const TrainingSetup& setup, int64_t stage);

}  // namespace tessera::plan
