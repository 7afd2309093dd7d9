#include "plan/memory.h"

#include <algorithm>
#include <cmath>

#include "plan/activations.h"
#include "schedule/schedule.h"

namespace tessera::plan {
namespace {

// Largest single block of a stage, the embedding and the head counted as blocks of their own.
WeightShapes largest_block(const ModelSpec& model, const Work& work, const Layout& layout, int64_t stage) {
  LayerRange range = stage_layers(model, layout, stage);
  WeightShapes largest;
  auto consider = [&](const WeightShapes& weights) {
    if (weights.dense + weights.experts > largest.dense + largest.experts) largest = weights;
  };
  for (int64_t layer = range.first; layer < range.last; ++layer)
    consider(layer_weights(model, work, layout, layer));
  bool last = stage == layout.pp * layout.virtual_stages - 1;
  if (stage == 0 || last) consider({embedding_weights(model, work, layout), 0});
  return largest;
}

// Elements of a rank's share of master, moments and, in exact mode, of each accumulator.
double share(const WeightShapes& weights, const Layout& layout) {
  return weights.dense / static_cast<double>(layout.replicas()) +
         weights.experts / static_cast<double>(layout.expert_replicas());
}

// Accumulators of exact mode follow a binary counter over the leaves of the step.
double accumulator_copies(const Work& work) {
  double leaves = static_cast<double>(work.micro_batches());
  return std::floor(std::log2(std::max(1.0, leaves))) + 1;
}

double gradient_bytes(const Work& work, const Layout& layout, const WeightShapes& stage,
                      const WeightShapes& block) {
  double leaf = 4 * (block.dense + block.experts);
  if (work.numerics == Numerics::exact) return 4 * share(stage, layout) * accumulator_copies(work) + leaf;
  return 4 * (stage.dense / static_cast<double>(layout.fsdp) +
              stage.experts / static_cast<double>(expert_fsdp(layout))) +
         leaf;
}

double activation_bytes(const ModelSpec& model, const Work& work, const Layout& layout, int64_t stage) {
  LayerRange range = stage_layers(model, layout, stage);
  double per_slot = 0, largest = 0;
  for (int64_t layer = range.first; layer < range.last; ++layer) {
    double kept = total_bytes(kept_by_block(model, work, layout, layer));
    largest = std::max(largest, kept);
    per_slot += layout.recompute == Recompute::full ? block_input_bytes(model, work, layout) : kept;
  }
  double again = layout.recompute == Recompute::full ? largest : 0;  // the block recomputed for its backward
  return per_slot * static_cast<double>(slots_in_flight(work, layout, stage)) + again;
}

double workspace_bytes(const ModelSpec& model, const Work& work, const Layout& layout, int64_t stage) {
  LayerRange range = stage_layers(model, layout, stage);
  double most = 0;
  for (int64_t layer = range.first; layer < range.last; ++layer)
    most = std::max(most, block_workspace_bytes(model, work, layout, layer));
  bool last = stage == layout.pp * layout.virtual_stages - 1;
  if (last) most = std::max(most, total_bytes(kept_by_head(model, work, layout)));
  return most;
}

}  // namespace

int64_t slots_in_flight(const Work& work, const Layout& layout, int64_t stage) {
  int64_t slots = work.micro_batches() / layout.replicas();
  return peak_slots_in_flight(make_schedule(layout.schedule, layout.pp, slots), stage);
}

MemoryByClass stage_memory(const ModelSpec& model, const Work& work, const Layout& layout, int64_t stage) {
  double w = bytes_of(work.precision);
  WeightShapes weights = stage_weights(model, work, layout, stage);
  WeightShapes block = largest_block(model, work, layout, stage);
  double fsdp = static_cast<double>(layout.fsdp), inner = static_cast<double>(expert_fsdp(layout));
  MemoryByClass memory;
  memory.weights = w * (weights.dense / fsdp + weights.experts / inner);
  memory.gathered = 2 * w * ((fsdp > 1 ? block.dense : 0) + (inner > 1 ? block.experts : 0));
  memory.optimizer = 12 * share(weights, layout);
  memory.gradients = gradient_bytes(work, layout, weights, block);
  memory.activations = activation_bytes(model, work, layout, stage);
  memory.workspace = workspace_bytes(model, work, layout, stage);
  return memory;
}

}  // namespace tessera::plan
