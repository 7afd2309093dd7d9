#include "plan/memory.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <deque>

#include "plan/activations.h"
#include "schedule/schedule.h"

namespace tessera::plan {
namespace {

// A unit of src/model/unit.h: weights that are gathered, reduced and updated together.
struct Unit {
  double elements = 0;  // padded so that every replica's slice is whole vectors
  double replicas = 1, shards = 1;
  double full_bytes(double w) const { return shards > 1 ? w * elements : 0; }
};
Unit make_unit(double elements, int64_t replicas, int64_t shards) {
  double step = 16 * static_cast<double>(replicas);
  return {std::ceil(elements / step) * step, static_cast<double>(replicas), static_cast<double>(shards)};
}

// Bytes of one unit's gradient buffers as src/model/gradient_sink.h holds them.
class Sink {
 public:
  Sink(const Unit& unit, bool exact) : unit_(unit), exact_(exact) {}

  double leaf() const { return 4 * unit_.elements; }
  double held() const { return sent_ + received_ + sums_; }
  bool sending() const { return sent_ > 0; }
  // A leaf (already counted by the caller) is handed over; afterwards held() says what stays.
  void end(bool last) {
    if (exact_ || unit_.shards > 1) return send();
    sums_ = leaf();
    if (!last) return;
    sums_ = 0;
    send();
  }
  // What was sent has arrived and is added up.
  void receive() {
    if (sending()) add_up();
  }

 private:
  double slice() const { return leaf() / unit_.replicas; }
  void send() {
    receive();
    if (unit_.replicas == 1) return add_up();
    sent_ = received_ = leaf();
  }
  void add_up() {
    sent_ = received_ = 0;
    leaves_ += static_cast<uint64_t>(unit_.replicas);
    sums_ = slice() * (exact_ ? std::popcount(leaves_) : 1);
  }

  Unit unit_;
  bool exact_;
  uint64_t leaves_ = 0;
  double sent_ = 0, received_ = 0, sums_ = 0;
};

struct Layer {
  Unit dense, experts;
  double kept_attention = 0, kept = 0, stays = 0;  // stays: until backward, fewer with recomputation
  Temporaries temporaries;
  std::vector<Sink> sinks;  // dense, experts
  double full_bytes(double w) const { return dense.full_bytes(w) + experts.full_bytes(w); }
};

constexpr size_t kSendsUnderWay = 2;  // GradientMeter::kSendsUnderWay of src/model/gradient_sink.h

// Walks one stage's row of the schedule table.
class Walk {
 public:
  Walk(const ModelSpec& model, const Work& work, const Layout& layout, int64_t stage)
      : model_(model),
        work_(work),
        layout_(layout),
        w_(bytes_of(work.precision)),
        first_(stage == 0),
        last_(stage == layout.pp * layout.virtual_stages - 1),
        recompute_(layout.recompute == Recompute::full) {
    make_layers(stage);
    end_unit_ = make_unit(embedding_weights(model, work, layout), layout.replicas(), layout.fsdp);
    if (first_) embedding_.emplace_back(end_unit_, exact());
    if (last_) head_.emplace_back(end_unit_, exact());
    count_states();
    head_temporaries_ = head_temporaries(model, work, layout);
    embedding_temporaries_ = embedding_backward_temporaries(model, work, layout);
  }

  MemoryByClass run(const std::vector<Action>& row) {
    int64_t slots = static_cast<int64_t>(row.size()) / 2;
    for (const Action& action : row) {
      bool last_slot = action.slot == slots - 1;
      action.kind == Action::forward ? forward(last_slot) : backward(last_slot);
    }
    return peak_;
  }

 private:
  bool exact() const { return work_.numerics == Numerics::exact; }

  void make_layers(int64_t stage) {
    LayerRange range = stage_layers(model_, layout_, stage);
    double attention = total_bytes(kept_by_attention(model_, work_, layout_));
    for (int64_t index = range.first; index < range.last; ++index) {
      bool alike = !layers_.empty() && model_.is_moe(index) == model_.is_moe(index - 1);
      if (alike) {
        layers_.push_back(layers_.back());
        continue;
      }
      WeightShapes weights = layer_weights(model_, work_, layout_, index);
      Layer layer;
      layer.dense = make_unit(weights.dense, layout_.replicas(), layout_.fsdp);
      layer.sinks.emplace_back(layer.dense, exact());
      if (weights.experts > 0) {
        layer.experts = make_unit(weights.experts, layout_.expert_replicas(), expert_fsdp(layout_));
        layer.sinks.emplace_back(layer.experts, exact());
      }
      layer.kept_attention = attention;
      layer.kept = attention + total_bytes(kept_by_ffn(model_, work_, layout_, index));
      layer.stays = recompute_ ? block_input_bytes(model_, work_, layout_) : layer.kept;
      layer.temporaries = block_temporaries(model_, work_, layout_, index);
      layers_.push_back(std::move(layer));
    }
  }

  void count_states() {
    auto add = [&](const Unit& unit) {
      now_.weights += w_ * unit.elements / unit.shards;
      now_.optimizer += (work_.precision == Precision::bf16 ? 12 : 8) * unit.elements / unit.replicas;
    };
    for (const Layer& layer : layers_) add(layer.dense), add(layer.experts);
    if (first_) add(end_unit_);
    if (last_ && !(model_.tied && first_)) add(end_unit_);
    if (last_) add(make_unit(static_cast<double>(model_.hidden), layout_.replicas(), layout_.fsdp));
  }

  // Is this moment, with these temporaries, gathered units, leaves under construction and what the piece has
  // kept so far, the peak?
  void look(double workspace, double gathered, double leaves = 0, double kept = 0) {
    MemoryByClass moment = now_;
    moment.activations += kept;
    moment.workspace = workspace;
    moment.gathered = gathered;
    moment.gradients += leaves;
    if (moment.total() > peak_.total()) peak_ = moment;
  }

  double gathered_at(size_t layer, size_t neighbour) const {
    return layers_[layer].full_bytes(w_) + (neighbour < layers_.size() ? layers_[neighbour].full_bytes(w_) : 0);
  }

  // A finished leaf goes to its sink. Few sends are under way at once: one more makes the oldest arrive.
  void hand_over(Sink& sink, bool last_slot) {
    change(sink, [&] { sink.end(last_slot); });
    std::erase(sending_, &sink);
    if (sink.sending()) sending_.push_back(&sink);
    if (sending_.size() <= kSendsUnderWay) return;
    look(block_input_bytes(model_, work_, layout_), 0);
    Sink& oldest = *sending_.front();
    change(oldest, [&] { oldest.receive(); });
    sending_.pop_front();
  }

  template <typename Event>
  void change(const Sink& sink, const Event& event) {
    now_.gradients -= sink.held();
    event();
    now_.gradients += sink.held();
  }

  void forward(bool last_slot) {
    now_.activations += batch_bytes(work_);
    double input = block_input_bytes(model_, work_, layout_);
    if (first_) look(2 * input, end_unit_.full_bytes(w_) + layers_[0].full_bytes(w_));
    for (size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      double gathered = gathered_at(i, i + 1);
      look(layer.temporaries.attention_forward, gathered, 0, layer.kept_attention);
      look(layer.temporaries.ffn_forward, gathered, 0, layer.kept);
      now_.activations += layer.stays;
    }
    if (last_) run_head(last_slot);
  }

  void run_head(bool last_slot) {
    double gathered = end_unit_.full_bytes(w_);
    Sink& sink = head_.front();
    look(head_temporaries_.with_leaf, gathered, sink.leaf());
    hand_over(sink, last_slot);
    look(head_temporaries_.after, gathered);
    now_.activations += block_input_bytes(model_, work_, layout_);  // dx waits for the backward
  }

  void backward(bool last_slot) {
    if (last_) now_.activations -= block_input_bytes(model_, work_, layout_);
    for (size_t i = layers_.size(); i-- > 0;) backward_layer(i, last_slot);
    if (first_) {
      look(embedding_temporaries_, 0, embedding_.front().leaf());
      hand_over(embedding_.front(), last_slot);
    }
    now_.activations -= batch_bytes(work_);
  }

  void backward_layer(size_t i, bool last_slot) {
    Layer& layer = layers_[i];
    double gathered = gathered_at(i, i - 1), leaf = layer.sinks[0].leaf();
    if (recompute_) {
      now_.activations += layer.kept - layer.stays;
      look(layer.temporaries.ffn_forward, gathered);
    }
    double expert_leaf = layer.sinks.size() > 1 ? layer.sinks[1].leaf() : 0;
    look(layer.temporaries.ffn_backward, gathered, leaf + expert_leaf);
    if (expert_leaf > 0) hand_over(layer.sinks[1], last_slot);
    look(layer.temporaries.attention_backward, gathered, leaf);
    hand_over(layer.sinks[0], last_slot);
    now_.activations -= layer.kept;
  }

  const ModelSpec& model_;
  const Work& work_;
  const Layout& layout_;
  double w_;
  bool first_, last_, recompute_;
  std::vector<Layer> layers_;
  Unit end_unit_;  // of the embedding, and of the head
  std::vector<Sink> embedding_, head_;
  std::deque<Sink*> sending_;  // oldest first
  HeadTemporaries head_temporaries_;
  double embedding_temporaries_ = 0;
  MemoryByClass now_, peak_;
};

}  // namespace

int64_t slots_in_flight(const Work& work, const Layout& layout, int64_t stage) {
  int64_t slots = work.micro_batches() / layout.replicas();
  return peak_slots_in_flight(make_schedule(layout.schedule, layout.pp, slots), stage);
}

MemoryByClass stage_memory(const ModelSpec& model, const Work& work, const Layout& layout, int64_t stage) {
  int64_t slots = work.micro_batches() / layout.replicas();
  Schedule schedule = make_schedule(layout.schedule, layout.pp, slots);
  return Walk(model, work, layout, stage).run(schedule.table[static_cast<size_t>(stage)]);
}

}  // namespace tessera::plan
