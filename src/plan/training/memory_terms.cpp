#include "plan/training/memory_terms.h"

#include <algorithm>

#include "plan/training/saved_tensors.h"

namespace tessera::plan {
namespace {

ModelMemory model_memory(const TrainingSetup& setup) {
  ModelMemory model{.kinds = {},
                    .ends = end_elements(setup),
                    .head_bytes = head_bytes(setup),
                    .placeholders = placeholder_bytes(setup),
                    .constants = &memory_constants(setup.options.framework)};
  for (const Layer& layer : setup.model.kinds) {
    KindMemory& kind = model.kinds.emplace_back();
    double temporaries = layer_backward_bytes(setup, layer);
    for (size_t full : {0, 1}) {
      LayerActivations bytes = layer_activations(setup, layer, full == 1);
      kind.kept[full] = bytes.kept, kind.backward[full] = bytes.recomputed + temporaries;
    }
    kind.elements = layer_elements(setup, layer);
    kind.deferred = weight_gradient_bytes(setup, layer);
  }
  return model;
}

StageLayers layers_of_stage(const TrainingSetup& setup, int64_t stage, const std::vector<LayerRange>& pieces) {
  size_t width = 2 * setup.model.kinds.size();
  StageLayers layers;
  layers.embedding = has_embedding(setup, stage), layers.head = has_head(setup, stage);
  layers.counts.assign(width * static_cast<size_t>(setup.chunks()), 0);
  layers.sums.assign(width, 0);
  for (int64_t chunk = 0; chunk < setup.chunks(); ++chunk) {
    double* counts = layers.counts.data() + width * static_cast<size_t>(chunk);
    LayerRange range = pieces[static_cast<size_t>(setup.piece_of(stage, chunk))];
    for (int64_t index = range.first; index < range.last; ++index) {
      bool full = recomputed_in_full(setup.layout.recompute, index - range.first);
      auto kind = static_cast<size_t>(setup.model.order[static_cast<size_t>(index)]);
      ++counts[2 * kind + (full ? 1 : 0)], ++layers.sums[2 * kind + (full ? 1 : 0)];
    }
    layers.even = layers.even && std::equal(counts, counts + width, layers.counts.begin());
  }
  return layers;
}

StagesLayers all_stages(const TrainingSetup& setup) {
  StagesLayers stages;
  std::vector<LayerRange> pieces = setup.pieces();
  for (int64_t stage = 0; stage < setup.layout.pp; ++stage) {
    StageLayers layers = layers_of_stage(setup, stage, pieces);
    auto found = std::find(stages.different.begin(), stages.different.end(), layers);
    stages.of_stage.push_back(static_cast<size_t>(found - stages.different.begin()));
    if (found != stages.different.end()) continue;
    stages.different.push_back(std::move(layers));
    stages.first.push_back(stage);
  }
  stages.held = moments_in_flight(setup);
  return stages;
}

}  // namespace

const ModelMemory& MemoryTerms::model(const TrainingSetup& setup) {
  TermKey key = layers_key(setup.layout, 0);
  auto found = models_.find(key);
  if (found == models_.end()) found = models_.emplace(std::move(key), model_memory(setup)).first;
  return found->second;
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
