#include "plan/training/states.h"

#include <algorithm>

namespace tessera::plan {
namespace {

double real(int64_t value) {
  return static_cast<double>(value);
}

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

void add(StageElements& sum, const TrainingSetup& setup, const std::vector<Weight>& list, double times) {
  for (const Weight& weight : list)
    (weight.part == Part::experts ? sum.experts : sum.dense) += times * rank_elements(setup, weight);
}

// Weights outside the layers. A tied head on another stage than the embedding has its own copy.
void add_ends(StageElements& sum, const TrainingSetup& setup, int64_t stage) {
  bool first = has_embedding(setup, stage), last = has_head(setup, stage);
  for (Weight weight : outer_weights(setup.model)) {
    if (weight.part == Part::embedding && !first) continue;
    if (weight.part != Part::embedding && !last) continue;
    bool own_copy = weight.part == Part::head && !first;
    if (own_copy) weight.stored = true;
    sum.dense += rank_elements(setup, weight);
  }
}

}  // namespace

bool has_embedding(const TrainingSetup& setup, int64_t stage) {
  for (int64_t chunk = 0; chunk < setup.chunks(); ++chunk)
    if (setup.piece_of(stage, chunk) == 0) return true;
  return false;
}

bool has_head(const TrainingSetup& setup, int64_t stage) {
  bool dualpipe = setup.layout.schedule == PipelineKind::dualpipe;
  int64_t last = setup.layout.pp * (dualpipe ? 1 : setup.chunks()) - 1;
  for (int64_t chunk = 0; chunk < setup.chunks(); ++chunk)
    if (setup.piece_of(stage, chunk) == last) return true;
  return false;
}

double rank_elements(const TrainingSetup& setup, const Weight& weight) {
  auto elements = real(weight.elements());
  if (weight.part == Part::experts) return elements / real(setup.layout.ep * setup.layout.expert_tp());
  if (weight.split == Split::none) return elements;
  double ranks = real(setup.layout.tp);
  if (weight.max_split > 0) ranks = std::min(ranks, real(weight.max_split));
  return elements / ranks;
}

double layer_elements(const TrainingSetup& setup, const Layer& layer) {
  double sum = 0;
  for (const Weight& weight : weights(setup.model, layer)) sum += rank_elements(setup, weight);
  return sum;
}

StageElements stage_elements(const TrainingSetup& setup, int64_t stage) {
  std::vector<int64_t> counts(setup.model.kinds.size(), 0);
  for (int64_t chunk = 0; chunk < setup.chunks(); ++chunk) {
    LayerRange range = setup.layers_of(stage, chunk);
    for (int64_t layer = range.first; layer < range.last; ++layer)
      ++counts[static_cast<size_t>(setup.model.order[static_cast<size_t>(layer)])];
  }
  StageElements sum;
  for (size_t kind = 0; kind < counts.size(); ++kind) {
    if (counts[kind] == 0) continue;
    const Layer& layer = setup.model.kinds[kind];
    add(sum, setup, weights(setup.model, layer), real(counts[kind]));
    sum.largest_layer = std::max(sum.largest_layer, layer_elements(setup, layer));
  }
  add_ends(sum, setup, stage);
  return sum;
}

StateBytes state_bytes(const TrainingSetup& setup, const StageElements& elements) {
  StateBytes dense = shard(setup, elements.dense, setup.layout.optimizer_shards());
  StateBytes experts = shard(setup, elements.experts, setup.layout.expert_optimizer_shards());
  return {dense.parameters + experts.parameters, dense.gradients + experts.gradients,
          dense.optimizer + experts.optimizer};
}

}  // namespace tessera::plan
