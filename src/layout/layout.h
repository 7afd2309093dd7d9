// Where a computation runs. `Work` says what is computed and fixes the bits; `Layout` says where, and in exact
// mode changes no bit. Both flow unchanged from plan to train to checkpoint to serve.
//
// processes = dp * fsdp * tp * pp * cp. `ep` adds none: it divides the dp * fsdp * cp replicas, so that
// consecutive replicas share one copy of the experts.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "spec/spec.h"

namespace tessera {

enum class Axis { tp, cp, fsdp, dp, pp };  // innermost first in the default order
enum class PipelineSchedule { gpipe, one_f_one_b };
enum class Recompute { none, full };
enum class Precision { float32, bf16 };
enum class Numerics { exact, fast };

const char* to_string(Axis axis);
const char* to_string(PipelineSchedule schedule);  // "gpipe", "1f1b"
const char* to_string(Recompute recompute);
const char* to_string(Precision precision);
const char* to_string(Numerics numerics);
Result<PipelineSchedule> parse_schedule(std::string_view text);
Result<Recompute> parse_recompute(std::string_view text);

// What is computed. Equal work gives equal bits in exact mode, whatever the layout.
struct Work {
  int64_t seq = 256;          // tokens of one sequence
  int64_t micro_batch = 1;    // sequences of one micro-batch
  int64_t global_batch = 12;  // sequences of one step
  Precision precision = Precision::float32;
  Numerics numerics = Numerics::fast;
  int64_t tp_blocks = 4;   // parts of every sum that tensor parallelism may split
  int64_t seq_chunks = 4;  // parts of every sum over the tokens of a micro-batch

  int64_t micro_batches() const { return global_batch / micro_batch; }  // of one step, over all replicas
  int64_t micro_batch_tokens() const { return micro_batch * seq; }
};

struct Layout {
  int64_t dp = 1, fsdp = 1, tp = 1, pp = 1, cp = 1, ep = 1;
  std::array<Axis, 5> order = {Axis::tp, Axis::cp, Axis::fsdp, Axis::dp, Axis::pp};  // innermost first
  PipelineSchedule schedule = PipelineSchedule::one_f_one_b;
  int64_t virtual_stages = 1;
  Recompute recompute = Recompute::none;

  int64_t processes() const { return dp * fsdp * tp * pp * cp; }
  int64_t replicas() const { return dp * fsdp; }                   // each runs its own micro-batches
  int64_t expert_replicas() const { return dp * fsdp * cp / ep; }  // that hold the same experts
  int64_t degree(Axis axis) const;
  bool operator==(const Layout&) const = default;
};

// "fsdp=2,tp=2,pp=2" with optional schedule=gpipe|1f1b, recompute=none|full, virtual_stages=n,
// order=tp-cp-fsdp-dp-pp. `ep=n` without dp, fsdp or cp stands for fsdp=n,ep=n. "" and "dp=1" are a single
// process.
Result<Layout> parse_layout(std::string_view text);
// The shortest text that parse_layout reads back: only what differs from the default; "dp=1" for a single
// process.
std::string to_string(const Layout& layout);

// Whether this work of this model can be laid out so. The error says which degree fails to divide what.
// `trainable`: also refuses what can be planned but not yet trained (cp, virtual stages).
Status validate(const ModelSpec& model, const Work& work, const Layout& layout, bool trainable = true);

// A rank's place on every axis.
struct Coordinate {
  int64_t dp = 0, fsdp = 0, tp = 0, pp = 0, cp = 0;
  int64_t& operator[](Axis axis);
  int64_t operator[](Axis axis) const;
  bool operator==(const Coordinate&) const = default;
};
Coordinate coordinate_of(const Layout& layout, int64_t rank);
int64_t rank_of(const Layout& layout, const Coordinate& coordinate);

// Data replica that runs micro-batches g with g mod replicas() == replica.
inline int64_t replica_of(const Layout& layout, const Coordinate& c) {
  return c.dp * layout.fsdp + c.fsdp;
}
// Place within the group of `ep` consecutive replicas, which owns experts [place, place + 1) * experts / ep.
inline int64_t expert_place(const Layout& layout, const Coordinate& c) {
  return replica_of(layout, c) % layout.ep;
}

// Ranks that differ from `rank` only along `axes`, in the order of the axes given (first varies fastest);
// includes `rank`.
std::vector<int64_t> ranks_along(const Layout& layout, int64_t rank, const std::vector<Axis>& axes);
// All ranks of one pipeline stage and tp place, in order of replica: they share every dense weight.
std::vector<int64_t> replica_ranks(const Layout& layout, int64_t rank);
// The `ep` consecutive replicas that exchange tokens with `rank`; and those that hold the same experts as
// `rank`.
std::vector<int64_t> expert_ranks(const Layout& layout, int64_t rank);
std::vector<int64_t> expert_replica_ranks(const Layout& layout, int64_t rank);

// Blocks [first, last) of a pipeline stage: layers / pp each, the first layers % pp stages one more.
struct LayerRange {
  int64_t first = 0, last = 0;
};
LayerRange stage_layers(const ModelSpec& model, const Layout& layout, int64_t stage);

}  // namespace tessera
