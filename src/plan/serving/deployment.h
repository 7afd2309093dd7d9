// What is served, where and by what: one worker (an instance of an engine that holds the whole model) as a
// layout of a model on accelerators. Several equal workers are a matter of the caller.
//
// Ranks of a worker: tp * pp * dp. Attention is split over tp and replicated over dp ("attention data
// parallelism"); the experts of a layer are split over the same tp * dp ranks as moe_tp * moe_ep.
// Threads: values.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"
#include "plan/serving/accelerator.h"
#include "plan/serving/engine.h"
#include "spec/blueprint.h"

namespace tessera::plan::serving {

struct WorkerLayout {
  int64_t tp = 1, pp = 1, dp = 1;
  int64_t moe_tp = 1, moe_ep = 1;  // of a model without experts: 1
  int64_t gpus() const { return tp * pp * dp; }
  bool operator==(const WorkerLayout&) const = default;
};
std::string to_string(const WorkerLayout& layout);  // "tp=8,ep=8"

// How weights and cache are held. A 4-bit format of a MoE model is that of its experts: publishers leave the
// attention in 16 bits (NVIDIA's and Moonshot's model cards).
struct Formats {
  WeightFormat attention = WeightFormat::bf16;  // projections of mixers
  WeightFormat ffn = WeightFormat::bf16;        // dense FFN and shared experts
  WeightFormat experts = WeightFormat::bf16;
  double kv_bytes = 2;  // of one cached element
};
// `name`: bf16, fp16, fp8, fp8_block, int8, nvfp4, mxfp4, int4, ... Errors: an unknown name.
Result<WeightFormat> parse_weight_format(const std::string& name);
Formats formats_for(const Blueprint& model, WeightFormat products, WeightFormat experts, double kv_bytes);

// Speculative decoding or multi-token prediction: `depth` draft tokens are verified in each step.
struct Speculation {
  int64_t depth = 0;
  double acceptance = 0;           // of one draft token, given that those before it were accepted
  double tokens_per_step() const;  // (1 - a^(depth+1)) / (1 - a): Leviathan et al. 2023, equation 1
};

struct Deployment {
  Blueprint model;
  Accelerator device;
  Engine engine;
  WorkerLayout layout;
  Formats formats;
  Speculation speculation;
};

// A layout that cannot be run: counts that do not divide, or more ranks of experts than experts.
Status check(const Deployment& deployment);

}  // namespace tessera::plan::serving
