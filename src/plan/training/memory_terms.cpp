#include "plan/training/memory_terms.h"

#include <algorithm>

#include "plan/training/saved_tensors.h"

namespace tessera::plan {
namespace {

// What does not depend on recomputation; `backward` holds temporaries only.
ModelMemory memory_without_activations(const TrainingSetup& setup) {
  ModelMemory model{.kinds = {},
                    .ends = end_elements(setup),
                    .head_bytes = head_bytes(setup),
                    .placeholders = placeholder_bytes(setup),
                    .constants = &memory_constants(setup.options.framework)};
  for (const Layer& layer : setup.model.kinds) {
    KindMemory& kind = model.kinds.emplace_back();
    kind.backward.fill(layer_backward_bytes(setup, layer));
    kind.elements = layer_elements(setup, layer);
    kind.deferred = weight_gradient_bytes(setup, layer);
  }
  return model;
}

void add_activations(const TrainingSetup& setup, ModelMemory& model) {
  for (size_t index = 0; index < model.kinds.size(); ++index)
    for (size_t full : {0, 1}) {
      LayerActivations bytes = layer_activations(setup, setup.model.kinds[index], full == 1);
      model.kinds[index].kept[full] = bytes.kept, model.kinds[index].backward[full] += bytes.recomputed;
    }
}

// Of so many layers of a chunk, those that recomputed_in_full() names.
int64_t num_recomputed(const Recomputation& re, int64_t layers) {
  switch (re.full) {
    case Recomputation::Full::none:
      return 0;
    case Recomputation::Full::all:
      return layers;
    case Recomputation::Full::first:
      return std::min(layers, re.layers);
    case Recomputation::Full::every:
      return layers / std::max<int64_t>(1, re.layers);
  }
  return 0;
}

// Adds the layers of a chunk to [kind][full].
void count_layers(const TrainingSetup& setup, LayerRange range, double* counts) {
  if (setup.model.kinds.size() == 1) {
    int64_t layers = range.last - range.first, full = num_recomputed(setup.layout.recompute, layers);
    counts[0] += static_cast<double>(layers - full), counts[1] += static_cast<double>(full);
    return;
  }
  for (int64_t index = range.first; index < range.last; ++index) {
    bool full = recomputed_in_full(setup.layout.recompute, index - range.first);
    auto kind = static_cast<size_t>(setup.model.order[static_cast<size_t>(index)]);
    ++counts[2 * kind + (full ? 1 : 0)];
  }
}

// Into `layers`, whose room is used again.
void layers_of_stage(const TrainingSetup& setup, int64_t stage, const std::vector<LayerRange>& pieces,
                     StageLayers& layers) {
  size_t width = 2 * setup.model.kinds.size();
  int64_t chunks = setup.chunks();
  layers.embedding = layers.head = false, layers.even = true;
  layers.counts.assign(width * static_cast<size_t>(chunks), 0);
  layers.sums.assign(width, 0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    double* counts = layers.counts.data() + width * static_cast<size_t>(chunk);
    auto piece = static_cast<size_t>(setup.piece_of(stage, chunk));
    layers.embedding = layers.embedding || piece == 0;
    layers.head = layers.head || piece + 1 == pieces.size();
    count_layers(setup, pieces[piece], counts);
    for (size_t place = 0; place < width; ++place) layers.sums[place] += counts[place];
    layers.even = layers.even && std::equal(counts, counts + width, layers.counts.begin());
  }
}

StagesLayers all_stages(const TrainingSetup& setup) {
  StagesLayers stages;
  std::vector<LayerRange> pieces = setup.pieces();
  StageLayers layers;
  stages.of_stage.reserve(static_cast<size_t>(setup.layout.pp));
  for (int64_t stage = 0; stage < setup.layout.pp; ++stage) {
    layers_of_stage(setup, stage, pieces, layers);
    auto found = std::find(stages.different.begin(), stages.different.end(), layers);
    stages.of_stage.push_back(static_cast<size_t>(found - stages.different.begin()));
    if (found != stages.different.end()) continue;
    stages.different.push_back(layers);
    stages.first.push_back(stage);
  }
  stages.held = moments_in_flight(setup);
  return stages;
}

}  // namespace

const ModelMemory& MemoryTerms::model(const TrainingSetup& setup) {
  TermKey key = layers_key(setup.layout, 0);
  auto found = models_.find(key);
  if (found != models_.end()) return found->second;
  TermKey shared = kept_layers_key(setup.layout);
  auto without = without_activations_.find(shared);
  if (without == without_activations_.end())
    without = without_activations_.emplace(shared, memory_without_activations(setup)).first;
  ModelMemory model = without->second;
  add_activations(setup, model);
  return models_.emplace(std::move(key), std::move(model)).first->second;
}

const StagesLayers& MemoryTerms::stages(const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  int64_t table = is_held_by_table(l.schedule) ? table_micro_batches(setup) : 0;
  TermKey key{{l.pp, setup.chunks(), static_cast<int64_t>(l.schedule), static_cast<int64_t>(l.recompute.full),
               l.recompute.layers, table},
              l.stage_layers};
  auto found = stages_.find(key);
  if (found == stages_.end()) found = stages_.emplace(std::move(key), all_stages(setup)).first;
  return found->second;
}

TrainingMemory MemoryTerms::of_stage(const TrainingSetup& setup, int64_t stage) {
  const StagesLayers& all = stages(setup);
  return stage_memory(setup, stage, all.different[all.of_stage[static_cast<size_t>(stage)]], model(setup),
                      all.held_by(stage));
}

TrainingMemory MemoryTerms::fullest(const TrainingSetup& setup) {
  const StagesLayers& all = stages(setup);
  const ModelMemory& layers = model(setup);
  TrainingMemory most;
  auto weigh = [&](int64_t stage, const StageLayers& held) {
    TrainingMemory memory = stage_memory(setup, stage, held, layers, all.held_by(stage));
    if (memory.required > most.required) most = memory;
  };
  if (all.held.empty())
    for (size_t index = 0; index < all.different.size(); ++index) weigh(all.first[index], all.different[index]);
  else
    for (size_t stage = 0; stage < all.held.size(); ++stage)
      weigh(static_cast<int64_t>(stage), all.different[all.of_stage[stage]]);
  return most;
}

}  // namespace tessera::plan
