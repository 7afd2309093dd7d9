// A training run of a GPU framework, complete: what is trained, on how much data a step, laid out how, with
// which options of the framework. Memory, time, search and validation all take this one struct. (Our own CPU
// trainer is described by tessera::Layout and Work; a GPU framework has more switches.)
//
// devices = dp * fsdp * tp * pp * cp. `ep` and `etp` add none: experts divide the dp * fsdp * cp * tp ranks of
// one pipeline stage, ep * etp of them hold one copy. Threads: values.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "layout/layout.h"
#include "schedule/pipeline_kind.h"
#include "spec/blueprint.h"

namespace tessera::plan {

// What the data-parallel ranks share out. `optimizer`: ZeRO-1, Megatron's distributed optimizer; `gradients`:
// ZeRO-2, FSDP SHARD_GRAD_OP; `parameters`: ZeRO-3, FSDP.
enum class Sharding { none, optimizer, gradients, parameters };
enum class Framework { megatron, deepspeed, fsdp1, fsdp2, jax };
enum class TrainingPrecision { float32, fp16, bf16, fp8, fp8_block, mxfp8, nvfp4 };
const char* to_string(Sharding sharding);
const char* to_string(Framework framework);
const char* to_string(TrainingPrecision precision);
const char* to_string(PipelineKind kind);
Result<TrainingPrecision> parse_training_precision(std::string_view text);
Result<PipelineKind> parse_pipeline_kind(std::string_view text);  // "zb-v", also written "zb_v"
// Several joined by commas; "all": every one that has a table.
Result<std::vector<PipelineKind>> parse_pipeline_kinds(std::string_view text);
Result<Sharding> parse_sharding(std::string_view text);  // "none|optimizer|gradients|parameters" or "0".."3"
bool is_8_bit_or_less(TrainingPrecision precision);      // products read quantised copies of weights and inputs

// What backward computes again. Layers recomputed in full keep only their input; `modules` apply to the others.
struct Recomputation {
  enum class Full { none, all, first, every };
  Full full = Full::none;
  int64_t layers = 0;  // first: so many layers of each virtual stage (Megatron "block"); every: each n-th
  int64_t uniform_chunk = 1;  // all: layers between two kept inputs (Megatron "uniform")
  // Megatron-Core's --recompute-modules.
  bool core_attention = false, norm = false, mla_up = false, mlp = false, moe = false, moe_act = false,
       shared_experts = false;
  bool cheap_ops =
      false;  // torch per-op: outputs of products and attention are kept, all else is computed again
  bool any_module() const {
    return core_attention || norm || mla_up || mlp || moe || moe_act || shared_experts || cheap_ops;
  }
  bool operator==(const Recomputation&) const = default;
};
// "none", "full", "full:first=4", "full:every=2", "full:chunk=2", "selective" (core attention), or modules
// joined by
// '+': "core_attn+layernorm+mla_up_proj+mlp+moe+moe_act+shared_experts+cheap_ops".
Result<Recomputation> parse_recomputation(std::string_view text);
std::string to_string(const Recomputation& recompute);

struct TrainingWork {
  int64_t seq = 2048;
  int64_t global_batch = 512;  // sequences of one step
  TrainingPrecision precision = TrainingPrecision::bf16;
};

struct TrainingLayout {
  int64_t dp = 1;    // replicas of the weights; their optimizer may be sharded
  int64_t fsdp = 1;  // ranks that share gradients or parameters (ZeRO-2, ZeRO-3, FSDP)
  int64_t tp = 1, pp = 1, cp = 1, ep = 1;
  int64_t etp = 0;  // tensor parallelism inside an expert, 0: as tp
  std::array<Axis, 5> order = {Axis::tp, Axis::cp, Axis::fsdp, Axis::dp, Axis::pp};  // innermost first
  PipelineKind schedule = PipelineKind::one_f_one_b;
  int64_t virtual_stages = 1;
  std::vector<int64_t> stage_layers;  // layers of each piece of the model in order; empty: even
  int64_t micro_batch = 1;            // sequences
  Recomputation recompute;
  bool sequence_parallel = false;  // activations between tensor-parallel regions are split over tp
  Sharding sharding = Sharding::optimizer;
  bool shard_over_cp = true;   // gradients, parameters: cp ranks share too
  bool keep_gathered = false;  // parameters: stay gathered from the first forward to the last backward
  bool offload_optimizer = false;

  int64_t devices() const { return dp * fsdp * tp * pp * cp; }
  int64_t replicas() const { return dp * fsdp; }  // each runs its own micro-batches
  int64_t expert_tp() const { return etp > 0 ? etp : tp; }
  // Ranks that hold the same experts' parameters.
  int64_t expert_replicas() const { return dp * fsdp * cp * tp / (ep * expert_tp()); }
  // Ranks over which the optimizer of a dense weight is shared out.
  int64_t optimizer_shards() const;
  int64_t expert_optimizer_shards() const;
};

// Options of the framework and of its release that change memory or time.
struct TrainingOptions {
  Framework framework = Framework::megatron;
  std::string software;         // as the source names it: "Megatron-Bridge 26.02", "DeepSpeed 2022-03"
  double release_year = 0;      // 2026.1; 0: unknown
  bool flash_attention = true;  // no seq x seq matrix is kept
  bool dropout = false;         // masks are kept
  bool fused_loss = false;      // vocabulary-parallel loss keeps no float32 copy of the logits
  bool fused_gated_act = true;  // one kernel: its output is not kept beside its inputs
  int64_t gradient_bytes = 4;   // of the accumulated gradient: 4 or 2
  int64_t master_bytes = 4;     // master copy of a weight, 0: none (or the weight itself is float32)
  int64_t moment_bytes = 4;     // of each of Adam's two
  bool shard_gradient_accumulator = true;  // false: DeepSpeed's BF16Optimizer keeps float32 gradients whole
  // What backward needs of attention's result and of gated activations' inputs is kept in 12 and in 8 bits:
  // DeepSeek-V3 report 3.3.3, Megatron's activation-func-fp8-input-store.
  bool narrow_activations = false;
  double expert_imbalance = 1;  // most loaded rank over the mean
  bool overlap_tp = false, overlap_dp = true, overlap_ep = false;
  bool cuda_graphs = false;
  std::string interconnect;  // as the source names it
};

struct TrainingSetup {
  Blueprint model;
  TrainingWork work;
  TrainingLayout layout;
  TrainingOptions options;

  // Of one replica in one step.
  int64_t micro_batches() const { return work.global_batch / (layout.replicas() * layout.micro_batch); }
  int64_t micro_batch_tokens() const { return layout.micro_batch * work.seq; }
  // Model chunks on one stage: virtual stages; 2 for V-shaped schedules and for DualPipe.
  int64_t chunks() const;
  // Layers of one chunk of a stage: those of its piece of the model (schedule/pipeline_kind.h). Uneven: the
  // middle pieces hold one layer more than the ends, which have embedding and head.
  LayerRange layers_of(int64_t stage, int64_t chunk) const;
  int64_t piece_of(int64_t stage, int64_t chunk) const;
  std::vector<LayerRange> pieces() const;  // of the model in order
};

// Whether the framework could start it: degrees that divide what they split, whole micro-batches. Errors name
// the two figures that do not fit.
Status validate(const TrainingSetup& setup);

// "dp=8,tp=4,pp=2,micro_batch=1,recompute=full,sp=on,sharding=optimizer": keys dp, fsdp, tp, pp, cp, ep, etp,
// order, schedule, virtual_stages, micro_batch, recompute, sp, sharding, keep_gathered. Omitted keys keep
// `base`.
Result<TrainingLayout> parse_training_layout(std::string_view text, TrainingLayout base = {});
std::string to_string(const TrainingLayout& layout);

}  // namespace tessera::plan
