#include "plan/training/step_terms.h"

#include <algorithm>
#include <tuple>

namespace tessera::plan {
namespace {

auto fields(const Recomputation& r) {
  return std::tie(r.full, r.layers, r.uniform_chunk, r.core_attention, r.norm, r.mla_up, r.mlp, r.moe,
                  r.moe_act, r.shared_experts, r.cheap_ops);
}

StageShape shape_of(const TrainingSetup& setup, int64_t stage) {
  size_t kinds = setup.model.kinds.size();
  StageShape shape{std::vector<double>(kinds + 2, 0)};
  for (int64_t chunk = 0; chunk < setup.chunks(); ++chunk) {
    LayerRange range = setup.layers_of(stage, chunk);
    for (int64_t index = range.first; index < range.last; ++index)
      ++shape.counts[static_cast<size_t>(setup.model.order[static_cast<size_t>(index)])];
    if (range.first == 0) ++shape.counts[kinds];
    if (range.last == setup.model.layers() && range.last > range.first) ++shape.counts[kinds + 1];
  }
  return shape;
}

}  // namespace

StageShapes stage_shapes(const TrainingSetup& setup) {
  StageShapes shapes;
  for (int64_t stage = 0; stage < setup.layout.pp; ++stage) {
    StageShape shape = shape_of(setup, stage);
    auto found = std::find(shapes.different.begin(), shapes.different.end(), shape);
    shapes.of_stage.push_back(static_cast<size_t>(found - shapes.different.begin()));
    if (found == shapes.different.end()) shapes.different.push_back(std::move(shape));
  }
  return shapes;
}

bool StepTerms::TimesOrder::operator()(const TimesKey& a, const TimesKey& b) const {
  if (a.first != b.first) return a.first < b.first;
  return fields(a.second) < fields(b.second);
}

const ModelTimes& StepTerms::times(const TrainingSetup& setup, const GpuCluster& cluster,
                                   const SoftwareGeneration& software) {
  const TrainingLayout& l = setup.layout;
  // The share of layers recomputed depends on how many a chunk holds.
  int64_t pieces = l.recompute.full == Recomputation::Full::first ? l.pp * setup.chunks() : 0;
  TimesKey key{{l.tp, l.cp, l.ep, l.expert_tp(), l.micro_batch, l.sequence_parallel, pieces}, l.recompute};
  auto found = times_.find(key);
  if (found != times_.end()) return found->second;
  LayerModel model(setup, cluster, software);
  ModelTimes times{.kinds = {},
                   .embedding = model.embedding(),
                   .head = model.head(),
                   .boundary_bytes = model.boundary_bytes()};
  for (const Layer& kind : setup.model.kinds) times.kinds.push_back(model.layer(kind));
  return times_.emplace(key, std::move(times)).first->second;
}

const StageShapes& StepTerms::shapes(const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  ShapesKey key{{l.pp, setup.chunks(), static_cast<int64_t>(l.schedule)}, l.stage_layers};
  auto found = shapes_.find(key);
  if (found != shapes_.end()) return found->second;
  return shapes_.emplace(std::move(key), stage_shapes(setup)).first->second;
}

double StepTerms::flops_per_token(const TrainingSetup& setup) {
  if (flops_per_token_ == 0)
    flops_per_token_ = forward_flops_per_token(setup.model, setup.work.seq, MaskFlops::credited);
  return flops_per_token_;
}

}  // namespace tessera::plan
