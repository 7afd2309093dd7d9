// A trainer for this part's tests: real state in real pieces of the layout, updated by a function of the
// samples that is exact in every order, so any layout gives the same bits. One step sleeps a little, so that a
// fault can strike in its middle.
#pragma once

#include <thread>

#include "checkpoint/testing_pieces.h"
#include "train/trainer.h"

namespace tessera::resilience::testing {

struct FakeSource : data::SampleSource {
  int64_t seq() const override { return 4; }
  data::Sample sample(int64_t index) const override {
    data::Sample sample;
    for (int64_t i = 0; i < 4; ++i) sample.tokens.push_back((index * 7919 + i * 104729) % 1009);
    return sample;
  }
};

class FakeTrainer : public train::Trainer {
 public:
  static Result<std::unique_ptr<train::Trainer>> create(train::TrainerOptions options) {
    auto trainer = std::make_unique<FakeTrainer>();
    std::vector<int64_t> ranks;
    for (int64_t rank = 0; rank < options.layout.processes(); ++rank) ranks.push_back(rank);
    TESSERA_ASSIGN_OR_RETURN(trainer->group_, options.make_group("world", ranks));
    trainer->pieces_ =
        checkpoint::testing::pieces_of_rank(options.model, options.work, options.layout, options.rank);
    trainer->options_ = std::move(options);
    return std::unique_ptr<train::Trainer>(std::move(trainer));
  }

  Result<train::StepReport> step(int64_t step, const data::SampleSource& source) override {
    int64_t sum = 0, replicas = options_.layout.replicas();
    int64_t replica = replica_of(options_.layout, coordinate_of(options_.layout, options_.rank));
    int64_t sharers = options_.layout.processes() / replicas;  // every rank of a replica adds the same
    for (int64_t i = 0; i < options_.work.global_batch; ++i) {
      if (i % replicas != replica) continue;
      for (int64_t token : source.sample(step * options_.work.global_batch + i).tokens) sum += token;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    TESSERA_RETURN_IF_ERROR(group_->all_reduce_sum(std::span(&sum, 1)));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    sum /= sharers;
    update(static_cast<float>(sum) / 1e5f);
    train::StepReport report;
    report.step = step, report.loss = static_cast<double>(sum), report.seconds = 0.025;
    return report;
  }
  Result<double> evaluate(const data::SampleSource&, int64_t, int64_t count) override {
    return static_cast<double>(count);
  }
  std::vector<Piece> state() override { return pieces_; }
  Status restore(PieceReader& reader) override {
    for (Piece& piece : pieces_)
      TESSERA_RETURN_IF_ERROR(reader.read(piece.tensor, piece.kind, piece.box, piece.values));
    return {};
  }
  Result<std::string> weights_hash() override {
    int64_t sum = 0;
    for (const Piece& piece : pieces_) {
      if (!piece.primary) continue;
      std::string name = piece.tensor + to_string(piece.kind);
      uint64_t seed = hash64(std::as_bytes(std::span(name)));
      const float* values = piece.values.const_data_ptr<float>();
      auto shape = shape_of(piece.tensor);
      checkpoint::for_each_run(piece.box, checkpoint::whole_box(shape), piece.box, [&](const auto& run) {
        for (int64_t i = 0; i < run.length; ++i) {
          uint64_t place = seed + static_cast<uint64_t>(run.at_a + i);
          sum += static_cast<int64_t>(hash64(std::as_bytes(std::span(values + run.at_b + i, 1)), place) >> 8);
        }
      });
    }
    TESSERA_RETURN_IF_ERROR(group_->all_reduce_sum(std::span(&sum, 1)));
    return hex(static_cast<uint64_t>(sum));
  }
  const std::vector<train::Fingerprint>& fingerprints() const override { return fingerprints_; }
  std::vector<Piece> gradients() override { return {}; }
  void abort(Error error) override { group_->abort(std::move(error)); }
  std::string current_operation() const override { return group_->current_operation(); }
  const std::vector<std::vector<train::TimelineEvent>>& timelines() const override { return timelines_; }
  const Layout& layout() const override { return options_.layout; }
  int64_t gradient_bytes_peak() const override { return 0; }

 private:
  std::vector<int64_t> shape_of(const std::string& name) const {
    for (const TensorSpec& tensor : inventory(options_.model))
      if (tensor.name == name) return tensor.shape;
    return {};
  }
  void update(float gradient) {
    for (Piece& piece : pieces_) {
      float* values = piece.values.mutable_data_ptr<float>();
      for (int64_t i = 0; i < piece.box.elements(); ++i) values[i] = values[i] * 0.875f + gradient;
    }
  }

  train::TrainerOptions options_;
  std::unique_ptr<Group> group_;
  std::vector<Piece> pieces_;
  std::vector<std::vector<train::TimelineEvent>> timelines_;
  std::vector<train::Fingerprint> fingerprints_;
};

}  // namespace tessera::resilience::testing
