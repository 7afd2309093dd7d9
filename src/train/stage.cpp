#include "train/stage.h"

#include "model/failure.h"

namespace tessera::train {

using at::Tensor;

Stage::Stage(model::Context& context) : context_(context), units_(model::make_units(context)) {
  if (units_.embedding) embedding_.emplace(context_, *units_.embedding, meter_);
  for (size_t i = 0; i < units_.dense.size(); ++i)
    blocks_.emplace_back(context_, *units_.dense[i], units_.experts[i], meter_);
  if (units_.head) head_.emplace(context_, *units_.final_norm, *units_.head, meter_);
}

void Stage::begin_step() {
  loss_ = {};
  moe_ = {};
  activation_sums.assign(static_cast<size_t>(context_.spec.layers + 1), 0);
}

Tensor Stage::receive(int64_t from_stage) {
  Tensor x = model::make({context_.local_tokens(), context_.spec.hidden}, context_.dtype());
  model::check(context_.groups.pp->recv(from_stage, model::mutable_bytes(x)));
  return x;
}

void Stage::send(int64_t to_stage, const Tensor& x) {
  model::check(context_.groups.pp->send(to_stage, model::bytes(x)));
}

void Stage::fingerprint(int64_t index, const Tensor& x, int64_t micro_batch) {
  if (!keep_fingerprints) return;
  int64_t token = micro_batch * context_.tokens() + context_.at.tp * context_.local_tokens();
  activation_sums[static_cast<size_t>(index)] +=
      element_sum(mix(static_cast<uint64_t>(index) + 1), x, 0, token * context_.spec.hidden, x.numel());
}

void Stage::forward(Slot& slot, model::Batch batch, int64_t micro_batch, int64_t valid_tokens, bool last) {
  slot.batch = std::move(batch);
  slot.blocks.clear();
  slot.blocks.resize(blocks_.size());
  LayerRange layers = stage_layers(context_.spec, context_.layout, context_.at.pp);
  blocks_.front().prefetch();
  Tensor x = embedding_ ? embedding_->forward(slot.batch) : receive(context_.at.pp - 1);
  if (embedding_) fingerprint(0, x, micro_batch);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (i + 1 < blocks_.size()) blocks_[i + 1].prefetch();
    x = blocks_[i].forward(slot.batch, x, slot.blocks[i], moe_);
    if (valid_tokens == 0) slot.blocks[i] = {};
    fingerprint(layers.first + static_cast<int64_t>(i) + 1, x, micro_batch);
  }
  if (head_)
    slot.dx = head_->run(slot.batch, x, valid_tokens, last, loss_);
  else
    send(context_.at.pp + 1, x);
}

void Stage::backward(Slot& slot, bool last) {
  blocks_.back().prefetch();
  Tensor dx = head_ ? slot.dx : receive(context_.at.pp + 1);
  slot.dx = Tensor();
  for (size_t i = blocks_.size(); i-- > 0;) {
    if (i > 0) blocks_[i - 1].prefetch();
    dx = blocks_[i].backward(slot.batch, dx, slot.blocks[i], last);
  }
  if (embedding_)
    embedding_->backward(slot.batch, dx, last);
  else
    send(context_.at.pp - 1, dx);
  slot = Slot();
}

std::vector<Use> Stage::uses() {
  std::vector<Use> uses;
  if (embedding_) uses.push_back({units_.embedding, &embedding_->sink()});
  for (model::Block& block : blocks_) {
    uses.push_back({&block.dense_unit(), &block.dense_sink()});
    if (block.expert_sink()) uses.push_back({block.expert_unit(), block.expert_sink()});
  }
  if (!head_) return uses;
  uses.push_back({units_.final_norm, &head_->norm_sink()});
  uses.push_back({units_.head, &head_->sink()});
  return uses;
}

}  // namespace tessera::train
