// Search of Calculon's space by the same bounds as our own (gpu_bounds.h), and by dominance: a switch that
// never helps is not tried, and no more is offloaded to the host than it takes to fit. Threads: reentrant.
#pragma once

#include "plan/training/calculon_space.h"
#include "plan/training/memory_terms.h"
#include "plan/training/step_terms.h"

namespace tessera::plan {

struct CalculonCandidate {
  TrainingLayout layout;
  CalculonSwitches switches;
};

// Time, memory by class of the fullest stage, and MFU of candidates of one request.
class CalculonModel {
 public:
  explicit CalculonModel(const GpuPlanRequest& request);

  // Ok when a framework could start it: degrees that divide, networks that hold their axes, three layers or
  // more on a stage that offloads.
  bool is_valid(const CalculonCandidate& candidate);
  TrainingMemory memory(const CalculonCandidate& candidate);
  TrainingStep step(const CalculonCandidate& candidate);
  double floor_s_per_sample(const CalculonGroup& group);
  double samples(const TrainingLayout& layout) const;  // of one step
  TrainingSetup setup(const CalculonCandidate& candidate) const;

 private:
  void use(const CalculonCandidate& candidate);
  const GpuPlanRequest& request_;
  TrainingSetup setup_;
  SoftwareGeneration software_;
  GpuCluster networks_[2];  // every group inside one domain; every device a domain of its own
  StepTerms steps_[2][2];   // by the networks of tp and dp
  MemoryTerms memory_;
  std::vector<EqualStages> stages_;
};

// The best of the space by seconds per sample, first in the space among equals.
GpuPlan search_calculon(const GpuPlanRequest& request);

}  // namespace tessera::plan
