// The part of the model on one pipeline stage, and the interpreter's two actions on it.
#pragma once

#include <deque>

#include "model/block.h"
#include "model/ends.h"
#include "train/fingerprint.h"

namespace tessera::train {

// What a micro-batch leaves on this stage between its forward and its backward.
struct Slot {
  model::Batch batch;
  std::vector<model::BlockSaved> blocks;
  at::Tensor dx;  // last stage: gradient that the head already made
};

// A gradient sum of one use of a unit.
struct Use {
  model::Unit* unit;
  model::GradientSink* sink;
};

class Stage {
 public:
  explicit Stage(model::Context& context);

  // `micro_batch` is the global index. valid_tokens == 0: evaluation, nothing is kept.
  void forward(Slot& slot, model::Batch batch, int64_t micro_batch, int64_t valid_tokens, bool last);
  void backward(Slot& slot, bool last);

  void begin_step();
  model::Units& units() { return units_; }
  const model::Units& units() const { return units_; }
  std::vector<Use> uses();  // in the order of make_units, a tied head after its embedding
  const model::LossSum& loss() const { return loss_; }
  const model::MoeStatistics& moe() const { return moe_; }
  const model::GradientMeter& gradient_meter() const { return meter_; }

  // Sums over this rank's activations: embedding, then every block of the whole model. Kept when asked for.
  bool keep_fingerprints = false;
  std::vector<uint64_t> activation_sums;

 private:
  at::Tensor receive(int64_t from_stage);
  void send(int64_t to_stage, const at::Tensor& x);
  void fingerprint(int64_t index, const at::Tensor& x, int64_t micro_batch);

  model::Context& context_;
  model::Units units_;
  model::GradientMeter meter_;
  std::optional<model::Embedding> embedding_;
  std::deque<model::Block> blocks_;
  std::optional<model::Head> head_;
  model::LossSum loss_;
  model::MoeStatistics moe_;
};

}  // namespace tessera::train
