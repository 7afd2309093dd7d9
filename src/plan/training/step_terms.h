// A search times tens of thousands of layouts that differ in a few fields each, while the costly part of a step
// (shapes of products, layers of stages) depends on few of them. Each part is computed once for the fields that
// it depends on and found again after that; a step is then sums over stages that differ.
//
// One object serves one request: model, work, options, cluster and software stay the same; only the layout
// changes. What comes back is what a fresh object would compute, to the last bit. Threads: one object per
// thread.
#pragma once

#include <array>
#include <unordered_map>
#include <vector>

#include "plan/training/data_parallel.h"
#include "plan/training/layer_time.h"
#include "plan/training/pipeline_time.h"
#include "plan/training/term_key.h"

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
  std::vector<double> stages;    // that have each of them
  std::vector<size_t> of_stage;  // stage -> index into `different`
};
StageShapes stage_shapes(const TrainingSetup& setup);

// One direction of a part of a stage as it appears on the clock.
struct ClockTime {
  double compute = 0, tp = 0, cp = 0, ep = 0, dp = 0, host = 0;
  double total() const { return compute + tp + cp + ep + dp + host; }
  void add(const ClockTime& other, double times);
  void scale(double factor);
};
struct StageClock {
  ClockTime forward, backward;
  RankParameters parameters;
};

class StepTerms {
 public:
  const ModelTimes& times(const TrainingSetup& setup, const GpuCluster& cluster,
                          const SoftwareGeneration& software);
  const StageShapes& shapes(const TrainingSetup& setup);
  double flops_per_token(const TrainingSetup& setup);  // forward, causal mask credited
  const GradientExchange& exchange(const TrainingSetup& setup, const GpuCluster& cluster,
                                   const RankParameters& parameters);

  // Room for the sums of one step, kept so that a search does not allocate.
  std::vector<StageClock> parts, clocks;
  std::vector<EqualStages> stages;

 private:
  static constexpr size_t kExchanges = 256;
  struct ExchangeOf {
    std::array<double, 10> key{};
    GradientExchange time;
  };
  const ModelTimes& kept_times(const TrainingSetup& setup, const GpuCluster& cluster,
                               const SoftwareGeneration& software);
  std::unordered_map<TermKey, ModelTimes, TermHash> times_, kept_times_;
  std::unordered_map<TermKey, StageShapes, TermHash> shapes_;
  std::vector<ExchangeOf> exchanges_ =
      std::vector<ExchangeOf>(kExchanges);  // each place holds the last that fell on it
  double flops_per_token_ = 0;
};

}  // namespace tessera::plan
