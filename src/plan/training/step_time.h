// Time of one training step on a GPU cluster, and what it is made of.
//
// Layers give the time of each stage; communication is hidden as far as the software generation hides it, and
// computation beside it is slowed; the pipeline schedule adds its bubble; gradient collectives that do not fit
// behind backward, the optimizer and the host's own time follow.
//
// Units: seconds, bytes, FLOP. Model FLOPs credit the causal mask (half of the square) and count no
// recomputation. Errors: a setup that its framework could not start. Threads: reentrant.
#pragma once

#include <string>
#include <vector>

#include "plan/hardware/gpu_cluster.h"
#include "plan/training/pipeline_time.h"
#include "plan/training/setup.h"
#include "plan/training/software.h"

namespace tessera::plan {

// Of what a generation leaves exposed, the part that stays when its overlap is switched on by name
// (torchtitan's asynchronous tensor parallelism, Megatron's expert overlap).
inline constexpr double kNamedOverlapLeft = 0.4;

// Sums to the step. `compute` is that of the slowest stage, with its slow-down beside communication.
struct TrainingBreakdown {
  double compute = 0, tp = 0, cp = 0, ep = 0, pp = 0, dp = 0, bubble = 0, optimizer = 0, host = 0;
  double total() const { return compute + tp + cp + ep + pp + dp + bubble + optimizer + host; }
};

struct TrainingStep {
  double seconds = 0, low = 0, high = 0;  // low to high: 90 % interval
  TrainingBreakdown breakdown;
  double tokens_per_s_per_device = 0;
  double model_flops = 0;  // of the whole step
  double tflops_per_device = 0;
  double mfu = 0;                 // against the 16-bit peak, or the 8-bit one where products are 8-bit
  double power_share = 0;         // of the step in which the multipliers work
  std::vector<PieceTime> pieces;  // of the model in order; empty where closed forms were used
  double send_s = 0;              // of one message between stages, what computation does not hide
};

// The pipeline by the recurrence over the table of its schedule; V-Half and V-Min, which have none, by their
// closed forms.
Result<TrainingStep> training_step_time(const TrainingSetup& setup, const GpuCluster& cluster,
                                        const SoftwareGeneration& software);

// For a search: the pipeline by its closed form, and layouts of one request share most of their terms, which
// `terms` keeps.
// REQUIRES: validate(setup) holds; `terms` only ever saw this model, work, options, cluster and software.
class StepTerms;
TrainingStep training_step_time(const TrainingSetup& setup, const GpuCluster& cluster,
                                const SoftwareGeneration& software, StepTerms& terms);

// Peak that MFU is counted against by convention: of bf16 for 16-bit runs, of fp8 for 8-bit ones.
double mfu_peak(const Device& device, TrainingPrecision precision);

}  // namespace tessera::plan
