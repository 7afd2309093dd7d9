#include "plan/training/step_terms.h"

#include <algorithm>
#include <bit>

namespace tessera::plan {
namespace {

// Into `shape`, whose room is used again.
void shape_of(const TrainingSetup& setup, int64_t stage, const std::vector<LayerRange>& pieces,
              StageShape& shape) {
  size_t kinds = setup.model.kinds.size();
  shape.counts.assign(kinds + 2, 0);
  for (int64_t chunk = 0, chunks = setup.chunks(); chunk < chunks; ++chunk) {
    LayerRange range = pieces[static_cast<size_t>(setup.piece_of(stage, chunk))];
    if (kinds == 1)
      shape.counts[0] += static_cast<double>(range.last - range.first);
    else
      for (int64_t index = range.first; index < range.last; ++index)
        ++shape.counts[static_cast<size_t>(setup.model.order[static_cast<size_t>(index)])];
    if (range.first == 0) ++shape.counts[kinds];
    if (range.last == setup.model.layers() && range.last > range.first) ++shape.counts[kinds + 1];
  }
}

}  // namespace

StageShapes stage_shapes(const TrainingSetup& setup) {
  StageShapes shapes;
  std::vector<LayerRange> pieces = setup.pieces();
  StageShape shape;
  for (int64_t stage = 0; stage < setup.layout.pp; ++stage) {
    shape_of(setup, stage, pieces, shape);
    auto found = std::find(shapes.different.begin(), shapes.different.end(), shape);
    shapes.of_stage.push_back(static_cast<size_t>(found - shapes.different.begin()));
    if (found == shapes.different.end()) {
      shapes.different.push_back(shape);
      shapes.stages.push_back(0);
    }
    ++shapes.stages[shapes.of_stage.back()];
  }
  return shapes;
}

void ClockTime::add(const ClockTime& other, double times) {
  compute += times * other.compute, tp += times * other.tp, cp += times * other.cp;
  ep += times * other.ep, dp += times * other.dp, host += times * other.host;
}

void ClockTime::scale(double factor) {
  for (double ClockTime::*part :
       {&ClockTime::compute, &ClockTime::tp, &ClockTime::cp, &ClockTime::ep, &ClockTime::dp, &ClockTime::host})
    this->*part *= factor;
}

const ModelTimes& StepTerms::times(const TrainingSetup& setup, const GpuCluster& cluster,
                                   const SoftwareGeneration& software) {
  TermKey key = layers_key(setup.layout, recomputed_share(setup));
  auto found = times_.find(key);
  if (found != times_.end()) return found->second;
  ModelTimes times = kept_times(setup, cluster, software);
  for (size_t kind = 0; kind < times.kinds.size(); ++kind)
    add_recomputation(setup, setup.model.kinds[kind], times.kinds[kind]);
  return times_.emplace(key, std::move(times)).first->second;
}

const ModelTimes& StepTerms::kept_times(const TrainingSetup& setup, const GpuCluster& cluster,
                                        const SoftwareGeneration& software) {
  TermKey key = kept_layers_key(setup.layout);
  auto found = kept_times_.find(key);
  if (found != kept_times_.end()) return found->second;
  LayerModel model(setup, cluster, software);
  ModelTimes times{.kinds = {},
                   .embedding = model.embedding(),
                   .head = model.head(),
                   .boundary_bytes = model.boundary_bytes()};
  for (const Layer& kind : setup.model.kinds) times.kinds.push_back(model.kept(kind));
  return kept_times_.emplace(key, std::move(times)).first->second;
}

const StageShapes& StepTerms::shapes(const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  TermKey key{{l.pp, setup.chunks(), static_cast<int64_t>(l.schedule)}, l.stage_layers};
  auto found = shapes_.find(key);
  if (found != shapes_.end()) return found->second;
  return shapes_.emplace(std::move(key), stage_shapes(setup)).first->second;
}

double StepTerms::flops_per_token(const TrainingSetup& setup) {
  if (flops_per_token_ == 0)
    flops_per_token_ = forward_flops_per_token(setup.model, setup.work.seq, MaskFlops::credited);
  return flops_per_token_;
}

const GradientExchange& StepTerms::exchange(const TrainingSetup& setup, const GpuCluster& cluster,
                                            const RankParameters& parameters) {
  const TrainingLayout& l = setup.layout;
  auto real = [](int64_t value) { return static_cast<double>(value); };
  std::array<double, 10> key = {parameters.dense,
                                parameters.experts,
                                real(l.dp),
                                real(l.fsdp),
                                real(l.tp),
                                real(l.cp),
                                real(l.ep),
                                real(l.expert_tp()),
                                real(static_cast<int64_t>(l.sharding)),
                                l.shard_over_cp ? 1.0 : 0.0};
  uint64_t hash = 1;
  for (double field : key) mix(hash, std::bit_cast<uint64_t>(field));
  ExchangeOf& place = exchanges_[hash % exchanges_.size()];
  if (place.key != key) place = {key, gradient_exchange(setup, cluster, parameters)};
  return place.time;
}

}  // namespace tessera::plan
