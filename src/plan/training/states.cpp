#include "plan/training/states.h"

#include <algorithm>

#include "core/numbers.h"

namespace tessera::plan {
namespace {

bool is_torch_sharded(const TrainingSetup& setup) {
  Framework framework = setup.options.framework;
  return framework == Framework::fsdp1 || framework == Framework::fsdp2;
}

// Bytes of one parameter before sharding.
struct BytesPerParameter {
  double weight, gradient, optimizer;
};
BytesPerParameter bytes_per_parameter(const TrainingSetup& setup) {
  const TrainingOptions& o = setup.options;
  double moments = 2 * real(o.moment_bytes);
  if (setup.work.precision == TrainingPrecision::float32) return {4, 4, moments};
  if (is_torch_sharded(setup)) return {0, 4, real(o.master_bytes) + moments};
  return {2, real(o.gradient_bytes), real(o.master_bytes) + moments};
}

StateBytes shard(const TrainingSetup& setup, double elements, int64_t ranks) {
  BytesPerParameter each = bytes_per_parameter(setup);
  Sharding sharding = setup.layout.sharding;
  double shards = real(ranks);
  bool whole_gradients = sharding < Sharding::gradients;
  StateBytes bytes;
  bytes.parameters = elements * each.weight / (sharding == Sharding::parameters ? shards : 1);
  bytes.gradients = elements * each.gradient / (whole_gradients ? 1 : shards);
  bytes.optimizer = setup.layout.offload_optimizer ? 0 : elements * each.optimizer / shards;
  // DeepSpeed's BF16Optimizer adds 16-bit gradients into float32 ones that no rank shares out.
  if (!setup.options.shard_gradient_accumulator) bytes.gradients = elements * (2 + 4);
  return bytes;
}

}  // namespace

double rank_elements(const TrainingSetup& setup, const Weight& weight) {
  auto elements = real(weight.elements());
  if (weight.part == Part::experts) return elements / real(setup.layout.ep * setup.layout.expert_tp());
  if (weight.split == Split::none) return elements;
  double ranks = real(setup.layout.tp);
  if (weight.max_split > 0) ranks = std::min(ranks, real(weight.max_split));
  return elements / ranks;
}

void StageElements::add(const StageElements& layer, double times) {
  dense += times * layer.dense, experts += times * layer.experts;
  largest_layer = std::max(largest_layer, layer.largest_layer);
}

StageElements layer_elements(const TrainingSetup& setup, const Layer& layer) {
  StageElements sum;
  for (const Weight& weight : weights(setup.model, layer))
    (weight.part == Part::experts ? sum.experts : sum.dense) += rank_elements(setup, weight);
  sum.largest_layer = sum.total();
  return sum;
}

double EndElements::of(bool has_embedding, bool has_head) const {
  double sum = has_embedding ? embedding : 0;
  if (has_head) sum += has_embedding ? last_beside_embedding : last;
  return sum;
}

EndElements end_elements(const TrainingSetup& setup) {
  EndElements ends;
  for (Weight weight : outer_weights(setup.model)) {
    double elements = rank_elements(setup, weight);
    if (weight.part == Part::embedding) {
      ends.embedding += elements;
      continue;
    }
    ends.last_beside_embedding += elements;
    if (weight.part == Part::head) weight.stored = true;
    ends.last += rank_elements(setup, weight);
  }
  return ends;
}

StateBytes state_bytes(const TrainingSetup& setup, const StageElements& elements) {
  StateBytes dense = shard(setup, elements.dense, setup.layout.optimizer_shards());
  StateBytes experts = shard(setup, elements.experts, setup.layout.expert_optimizer_shards());
  return {dense.parameters + experts.parameters, dense.gradients + experts.gradients,
          dense.optimizer + experts.optimizer};
}

}  // namespace tessera::plan
