// What a release of a training framework makes of the hardware: how well it fuses, hides communication, and
// how much its host code costs. The same cluster gained 20 to 50 % on mixture-of-experts models between two
// releases of one framework half a year apart, so software is an input of a prediction beside hardware.
//
// Generations live in data/constants/training.toml, made by scripts/fit_training.py; each has the few constants
// below, the same for every model and every device. Threads: values.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "plan/hardware/gpu_cluster.h"
#include "plan/training/setup.h"

namespace tessera::plan {

struct SoftwareGeneration {
  std::string name;      // "megatron-2021", "bridge-26.04"
  double year = 0;       // of the release, 2024.6
  double products = 1;   // rate of products against the device's constant: layouts, casts, library version
  double attention = 1;  // rate of flash attention against the device's constant
  double attention_hopper = 0;   // the same from Hopper on, whose kernels came later; 0: as `attention`
  double pointwise = 1;          // bytes of pointwise passes against fully fused kernels
  double grouped = 1;            // rate of grouped products against dense ones of their shape
  double tp_exposed = 1;         // share of tensor-parallel communication that computation does not hide
  double ep_exposed = 1;         // of expert all-to-all
  double dp_exposed = 1;         // of gradient and parameter collectives, beside the last and first micro-batch
  double pp_exposed = 1;         // of sends between stages
  double sharded_rate = 1;       // rate of gathers and scatters of sharded parameters against the link's
  double cp_slowdown = 1;        // of attention under context parallelism: masks shared out unevenly
  double dedupe = 0;             // 1: experts' tokens cross to another host once, not once per expert
  double narrow_host = 1;        // host time with 8-bit and 4-bit products against 16-bit
  double contention = 1.1;       // slow-down of computation that runs beside communication
  double host_layer_s = 1e-3;    // host time of one layer's forward; backward takes 1.5 times that
  double host_experts_s = 1e-3;  // more for a layer with experts
  double step_s = 0.02;          // once per step: data, norms, logging, launch of the optimizer
  double half_width = 0.2;       // of the 90 % interval, relative, when the layout is complete
  std::vector<PipelineKind> schedules = {PipelineKind::one_f_one_b};  // that it runs; interleaved: 1F1B
  std::string source;
};

// Errors name the nearest known generation.
Result<SoftwareGeneration> software_by_name(const std::string& name);
std::vector<std::string> software_names();
// Newest generation: what a plan without a stated software assumes.
const SoftwareGeneration& newest_software();
// Efficiencies that kernels reach inside a training step, where clocks sink under load and neighbours share
// memory: the cluster with its constants for training, or unchanged when there are none.
GpuCluster for_training(GpuCluster cluster);
// Replaces constants by those of a TOML text of tables "software.NAME" and "device.NAME": how a fit tries
// values.
Status override_training_constants(std::string_view toml, const std::string& file_name);

}  // namespace tessera::plan
