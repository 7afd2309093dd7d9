// The two ends of the model: token embedding, and final norm, head and loss, both with the vocabulary cut over
// tp.
#pragma once

#include "core/exact_sum.h"
#include "model/batch.h"
#include "model/gradient_sink.h"

namespace tessera::model {

// Look-up: tp rank p holds rows of its part of the padded vocabulary. A token's row is selected, never summed.
class Embedding {
 public:
  Embedding(Context& context, Unit& unit, GradientMeter& meter)
      : context_(context), unit_(unit), sink_(context, unit, meter) {}
  Tensor forward(const Batch& batch);                              // [Tl, D]
  void backward(const Batch& batch, const Tensor& dx, bool last);  // dx[Tl, D]
  GradientSink& sink() { return sink_; }

 private:
  Context& context_;
  Unit& unit_;
  GradientSink sink_;
};

// Sum of token losses so far, exact and so independent of order and layout.
struct LossSum {
  ExactSum nats;
  int64_t tokens = 0;
};

// Backward of the head runs right after its forward: logits live for a moment only, whatever the schedule.
class Head {
 public:
  Head(Context& context, Unit& norm, Unit& unit, GradientMeter& meter)
      : context_(context),
        norm_(norm),
        unit_(unit),
        norm_sink_(context, norm, meter),
        sink_(context, unit, meter) {}

  // Adds the micro-batch's token losses to `loss` (on tp place 0) and returns dx[Tl, D] of the mean loss over
  // `valid_tokens` tokens of the global batch; undefined when valid_tokens is 0 (evaluation: no gradients).
  Tensor run(const Batch& batch, const Tensor& x, int64_t valid_tokens, bool last, LossSum& loss);

  GradientSink& norm_sink() { return norm_sink_; }
  GradientSink& sink() { return sink_; }

 private:
  Tensor backward(const Tensor& h_all, Tensor& logits, const Tensor& x, const Tensor& rstd, bool last);
  Role role() const { return context_.spec.tied ? Role::embedding : Role::head; }

  Context& context_;
  Unit& norm_;
  Unit& unit_;
  GradientSink norm_sink_, sink_;
};

}  // namespace tessera::model
