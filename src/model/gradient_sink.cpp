#include "model/gradient_sink.h"

#include "model/failure.h"

namespace tessera::model {

Tensor GradientSink::begin() {
  Tensor flat = make_float({unit_.elements()});
  const UnitTensor& last = unit_.tensors().back();
  int64_t used = last.offset + last.elements;
  if (used < unit_.elements()) flat.narrow(0, used, unit_.elements() - used).zero_();
  meter_.change(flat.nbytes());
  return flat;
}

void GradientSink::end(Tensor leaf, bool last) {
  bool every_slot = context_.exact() || unit_.sharded();
  if (every_slot) return send(std::move(leaf));
  if (sum_.defined()) {
    kernels::add_into(sum_, leaf);
    meter_.change(-leaf.nbytes());
  } else {
    sum_ = std::move(leaf);
  }
  if (last) send(std::exchange(sum_, Tensor()));
}

void GradientSink::send(Tensor leaf) {
  receive();
  int64_t replicas = unit_.replicas();
  if (replicas == 1) return add_up({std::move(leaf)});
  std::vector<Bytes> out;
  std::vector<MutableBytes> in;
  for (int64_t replica = 0; replica < replicas; ++replica) {
    out.push_back(
        bytes(leaf.narrow(0, unit_.slice_of(replica) * unit_.slice_elements(), unit_.slice_elements())));
    received_.push_back(make_float({unit_.slice_elements()}));
    in.push_back(mutable_bytes(received_.back()));
  }
  meter_.change(leaf.nbytes());
  sent_ = std::move(leaf);
  exchange_ = unit_.groups().replicas->start_all_to_all(std::move(out), std::move(in));
  meter_.sending.push_back(this);
  if (meter_.sending.size() > GradientMeter::kSendsUnderWay) meter_.sending.front()->receive();
}

void GradientSink::receive() {
  if (!exchange_) return;
  std::erase(meter_.sending, this);
  Status status = exchange_->wait();
  exchange_.reset();
  meter_.change(-sent_.nbytes());
  sent_ = Tensor();
  check(status);
  add_up(std::exchange(received_, {}));
}

void GradientSink::add_up(std::vector<Tensor> leaves) {
  int64_t before = counter_.held_elements() + (sum_.defined() ? sum_.numel() : 0);
  int64_t arrived = static_cast<int64_t>(leaves.size()) * unit_.slice_elements();
  if (context_.exact()) {
    for (Tensor& leaf : leaves) counter_.push(std::move(leaf));
  } else {
    Tensor total = tree_sum(std::move(leaves));
    if (sum_.defined())
      kernels::add_into(sum_, total);
    else
      sum_ = std::move(total);
  }
  int64_t after = counter_.held_elements() + (sum_.defined() ? sum_.numel() : 0);
  meter_.change((after - before - arrived) * static_cast<int64_t>(sizeof(float)));
}

Tensor GradientSink::finish() {
  receive();
  Tensor total = context_.exact() ? counter_.finish() : std::exchange(sum_, Tensor());
  meter_.change(-total.nbytes());
  return total;
}

}  // namespace tessera::model
