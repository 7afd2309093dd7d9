// A search times tens of thousands of layouts that differ in a few fields each, while the costly part of a step
// (shapes of products, layers of stages) depends on few of them. Each part is computed once for the fields that
// it depends on and found again after that; a step is then sums over stages that differ.
//
// One object serves one request: model, work, options, cluster and software stay the same; only the layout
// changes. What comes back is what a fresh object would compute, to the last bit. Threads: one object per
// thread.
#pragma once

#include <array>
#include <map>
#include <vector>

#include "plan/training/layer_time.h"

namespace tessera::plan {

// One micro-batch through each kind of layer and through both ends.
struct ModelTimes {
  std::vector<LayerTimes> kinds;
  LayerTimes embedding, head;
  double boundary_bytes = 0;  // that one stage sends to the next
};

// How often a stage holds each kind of layer, then the embedding, then the head.
struct StageShape {
  std::vector<double> counts;
  bool operator==(const StageShape&) const = default;
};
struct StageShapes {
  std::vector<StageShape> different;
  std::vector<size_t> of_stage;  // stage -> index into `different`
};
StageShapes stage_shapes(const TrainingSetup& setup);

class StepTerms {
 public:
  const ModelTimes& times(const TrainingSetup& setup, const GpuCluster& cluster,
                          const SoftwareGeneration& software);
  const StageShapes& shapes(const TrainingSetup& setup);
  double flops_per_token(const TrainingSetup& setup);  // forward, causal mask credited

 private:
  using TimesKey = std::pair<std::array<int64_t, 7>, Recomputation>;
  struct TimesOrder {
    bool operator()(const TimesKey& a, const TimesKey& b) const;
  };
  using ShapesKey = std::pair<std::array<int64_t, 3>, std::vector<int64_t>>;
  std::map<TimesKey, ModelTimes, TimesOrder> times_;
  std::map<ShapesKey, StageShapes> shapes_;
  double flops_per_token_ = 0;
};

}  // namespace tessera::plan
