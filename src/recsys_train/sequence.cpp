#include "recsys_train/sequence.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/softmax.h>

namespace tessera::recsys_train {
namespace {

constexpr double kFarBelow = -1e9;  // a score that softmax gives no weight

std::vector<int64_t> with_score(std::vector<int64_t> hidden) {
  hidden.push_back(1);
  return hidden;
}

}  // namespace

SequenceAttention::SequenceAttention(Parameters& parameters, const std::string& name, int64_t dim,
                                     const std::vector<int64_t>& hidden, bool softmax)
    : softmax_(softmax), mlp_(parameters, name, 4 * dim, with_score(hidden), false) {}

Tensor SequenceAttention::forward(const Tensor& keys_BLD, const Tensor& target_BD, const Tensor& lengths) {
  const int64_t rows = keys_BLD.size(0), length = keys_BLD.size(1);
  keys_ = keys_BLD;
  target_ = target_BD.unsqueeze(1).expand_as(keys_BLD);
  mask_ = at::arange(length, at::kFloat).unsqueeze(0).lt(lengths.unsqueeze(1)).to(at::kFloat);
  Tensor seen = at::cat({target_, keys_, target_ - keys_, target_ * keys_}, 2);
  Tensor scores = mlp_.forward(seen.view({rows * length, seen.size(2)})).view({rows, length});
  if (softmax_) scores = at::softmax(scores.masked_fill(mask_.eq(0), kFarBelow), 1);
  weights_ = scores * mask_;
  return at::bmm(weights_.unsqueeze(1), keys_).squeeze(1);
}

SequenceAttention::Gradients SequenceAttention::backward(const Tensor& gradient_BD) {
  const int64_t rows = keys_.size(0), length = keys_.size(1);
  Tensor to_weights = at::bmm(keys_, gradient_BD.unsqueeze(2)).squeeze(2) * mask_;
  Tensor to_scores = softmax_ ? weights_ * (to_weights - (to_weights * weights_).sum(1, true)) : to_weights;
  Tensor to_seen = mlp_.backward(to_scores.view({rows * length, 1})).view({rows, length, -1});
  auto parts = to_seen.chunk(4, 2);
  return {.keys = weights_.unsqueeze(2) * gradient_BD.unsqueeze(1) + parts[1] - parts[2] + parts[3] * target_,
          .target = (parts[0] + parts[2] + parts[3] * keys_).sum(1)};
}

SequencePooling::SequencePooling(Parameters& parameters, std::vector<SequencePlace> places, int64_t slots,
                                 int64_t dim, const std::vector<int64_t>& hidden, bool softmax)
    : places_(std::move(places)), sequence_(static_cast<size_t>(slots), -1) {
  for (size_t q = 0; q < places_.size(); ++q) {
    sequence_[static_cast<size_t>(places_[q].slot)] = static_cast<int64_t>(q);
    attention_.emplace_back(parameters, "attention." + std::to_string(places_[q].slot), dim, hidden, softmax);
  }
  for (int64_t slot = 0, place = 0; slot < slots; place += places_of(slot++)) first_.push_back(place);
}

int64_t SequencePooling::places_of(int64_t slot) const {
  const int64_t sequence = sequence_[static_cast<size_t>(slot)];
  return sequence < 0 ? 1 : places_[static_cast<size_t>(sequence)].length;
}

Tensor SequencePooling::forward(const Tensor& rows_BPD, const Tensor& lengths_BQ) {
  std::vector<Tensor> slots;
  for (size_t slot = 0; slot < first_.size(); ++slot) {
    Tensor rows = rows_BPD.narrow(1, first_[slot], places_of(static_cast<int64_t>(slot)));
    if (sequence_[slot] >= 0) {
      const auto q = static_cast<size_t>(sequence_[slot]);
      Tensor target = rows_BPD.select(1, first_[static_cast<size_t>(places_[q].target)]);
      rows = attention_[q].forward(rows, target, lengths_BQ.select(1, sequence_[slot])).unsqueeze(1);
    }
    slots.push_back(rows);
  }
  return at::cat(slots, 1);
}

Tensor SequencePooling::backward(const Tensor& gradient_BSD) {
  std::vector<Tensor> rows;
  for (size_t slot = 0; slot < first_.size(); ++slot)
    rows.push_back(gradient_BSD.narrow(1, static_cast<int64_t>(slot), 1));
  for (size_t q = 0; q < places_.size(); ++q) {
    auto to = attention_[q].backward(gradient_BSD.select(1, places_[q].slot));
    rows[static_cast<size_t>(places_[q].slot)] = to.keys;
    Tensor& target = rows[static_cast<size_t>(places_[q].target)];
    target = target + to.target.unsqueeze(1);
  }
  return at::cat(rows, 1);
}

}  // namespace tessera::recsys_train
