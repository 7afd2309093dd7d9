// One transformer block on this rank: x + attention(norm(x)), then x + ffn(norm(x)).
#pragma once

#include <optional>

#include "model/attention.h"
#include "model/dense_ffn.h"
#include "model/gradient_sink.h"
#include "model/moe_ffn.h"

namespace tessera::model {

// What backward of one micro-batch needs. With full recomputation only x is kept.
struct BlockSaved {
  Tensor x, middle;  // [Tl, D] before attention, before the FFN
  Tensor attention_rstd, ffn_rstd;
  AttentionSaved attention;
  DenseSaved dense;
  MoeSaved moe;
};

class Block {
 public:
  Block(Context& context, Unit& dense, Unit* experts, GradientMeter& meter);

  // x[Tl, D] -> [Tl, D]. Weights are gathered and freed inside; prefetch() may have started it.
  Tensor forward(const Batch& batch, const Tensor& x, BlockSaved& saved, MoeStatistics& statistics);
  // dy -> dx. `last`: the last micro-batch of the step.
  Tensor backward(const Batch& batch, const Tensor& dy, BlockSaved& saved, bool last);

  void prefetch();
  Unit& dense_unit() { return dense_; }
  GradientSink& dense_sink() { return dense_sink_; }
  Unit* expert_unit() { return experts_; }
  GradientSink* expert_sink() { return expert_sink_ ? &*expert_sink_ : nullptr; }

 private:
  Tensor run(const Batch& batch, const Tensor& x, BlockSaved& saved, MoeStatistics& statistics);
  Tensor ffn_backward(const Tensor& dy, BlockSaved& saved, const Tensor& gradient, bool last);
  void acquire();
  void release();

  Context& context_;
  Unit& dense_;
  Unit* experts_;
  GradientSink dense_sink_;
  std::optional<GradientSink> expert_sink_;
};

}  // namespace tessera::model
