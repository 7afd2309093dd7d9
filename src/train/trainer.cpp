#include "train/trainer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "model/failure.h"
#include "schedule/schedule.h"
#include "train/fingerprint.h"
#include "train/initial_weights.h"
#include "train/job_groups.h"
#include "train/scalar_sums.h"
#include "train/stage.h"
#include "train/step_memory.h"
#include "train/timeline.h"

namespace tessera::train {
namespace {

using at::Tensor;
using model::check;

double monotonic_seconds() {
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// The gradient of one unit for this rank's slice: a unit used twice has its uses added in order of use.
struct UnitGradient {
  model::Unit* unit;
  Tensor sum;
};

class RankTrainer : public Trainer {
 public:
  explicit RankTrainer(TrainerOptions options) : options_(std::move(options)) {}

  Status open();
  Result<StepReport> step(int64_t step, const data::SampleSource& source) override;
  Result<double> evaluate(const data::SampleSource& source, int64_t first, int64_t count) override;
  std::vector<Piece> state() override;
  Status restore(PieceReader& reader) override;
  Result<std::string> weights_hash() override;
  const std::vector<Fingerprint>& fingerprints() const override { return fingerprints_; }
  std::vector<Piece> gradients() override;
  void abort(Error error) override;
  std::string current_operation() const override;
  const std::vector<std::vector<TimelineEvent>>& timelines() const override { return timelines_; }
  const Layout& layout() const override { return options_.layout; }
  int64_t gradient_bytes_peak() const override { return stage_->gradient_meter().peak; }

 private:
  model::Batch batch_of(const data::SampleSource& source, int64_t first_sample) const;
  int64_t count_valid_tokens(int64_t step, const data::SampleSource& source);
  void run_schedule(int64_t step, const data::SampleSource& source, int64_t valid_tokens);
  std::vector<UnitGradient> collect_gradients();
  void add_tied_use(UnitGradient& gradient);
  ExactSum squared_norm(const std::vector<UnitGradient>& gradients) const;
  void update(int64_t step, double scale, const std::vector<UnitGradient>& gradients);
  void fill_report(ScalarSums& sums, StepReport& report) const;
  RankMemory memory();
  void make_fingerprints(double loss);
  uint64_t slice_sum(const model::Unit& unit, const Tensor& slice) const;
  template <class Body>
  void timed(const char* name, int64_t slot, Body body);
  int64_t slots() const { return context_.work.micro_batches() / context_.layout.replicas(); }

  TrainerOptions options_;
  model::Context context_;
  std::unique_ptr<Group> tied_;
  std::optional<Stage> stage_;
  Schedule schedule_;
  std::vector<UnitGradient> kept_gradients_;
  std::vector<Fingerprint> fingerprints_;
  StepMemory memory_;
  std::vector<TimelineEvent> timeline_;                // of this rank
  std::vector<std::vector<TimelineEvent>> timelines_;  // of all
  Clock::time_point step_start_;
  mutable std::mutex operation_mutex_;
  std::string operation_;
};

Status RankTrainer::open() {
  TESSERA_RETURN_IF_ERROR(validate(options_.model, options_.work, options_.layout));
  context_.spec = options_.model;
  context_.work = options_.work;
  context_.layout = options_.layout;
  context_.rank = options_.rank;
  context_.at = coordinate_of(options_.layout, options_.rank);
  TESSERA_RETURN_IF_ERROR(make_groups(context_, options_, tied_));
  context_.rope =
      kernels::rope_table(inverse_frequencies(options_.model.rope, options_.model.head_dim), options_.work.seq);
  stage_.emplace(context_);
  stage_->keep_fingerprints = options_.keep_fingerprints;
  schedule_ = make_schedule(options_.layout.schedule, options_.layout.pp, slots());
  TESSERA_RETURN_IF_ERROR(tessera::validate(schedule_));
  for (auto& unit : stage_->units().all) initialise(*unit, options_.model, options_.seed);
  return {};
}

template <class Body>
void RankTrainer::timed(const char* name, int64_t slot, Body body) {
  {
    std::lock_guard lock(operation_mutex_);
    operation_ = slot < 0 ? name : fmt::format("{} of slot {}", name, slot);
  }
  double begin = monotonic_seconds();
  body();
  timeline_.push_back({name, slot, begin, monotonic_seconds()});
  std::lock_guard lock(operation_mutex_);
  operation_.clear();
}

model::Batch RankTrainer::batch_of(const data::SampleSource& source, int64_t first_sample) const {
  std::vector<data::Sample> samples;
  for (int64_t i = 0; i < context_.work.micro_batch; ++i) samples.push_back(source.sample(first_sample + i));
  return model::make_batch(samples);
}

// Tokens with a target in the global batch: known from the data before the first gradient is scaled by it.
int64_t RankTrainer::count_valid_tokens(int64_t step, const data::SampleSource& source) {
  const Work& work = context_.work;
  int64_t replica = replica_of(context_.layout, context_.at), count = 0;
  for (int64_t g = replica; g < work.micro_batches(); g += context_.layout.replicas())
    for (int64_t i = 0; i < work.micro_batch; ++i)
      count += source.sample(step * work.global_batch + g * work.micro_batch + i).valid_tokens();
  check(context_.groups.replicas->all_reduce_sum({&count, 1}));
  return count;
}

void RankTrainer::run_schedule(int64_t step, const data::SampleSource& source, int64_t valid_tokens) {
  std::vector<Slot> slots(static_cast<size_t>(this->slots()));
  const Work& work = context_.work;
  for (const Action& action : schedule_.table[static_cast<size_t>(context_.at.pp)]) {
    Slot& slot = slots[static_cast<size_t>(action.slot)];
    bool last = action.slot == this->slots() - 1;
    if (action.kind == Action::backward) {
      timed("backward", action.slot, [&] { stage_->backward(slot, last); });
      continue;
    }
    int64_t micro_batch = action.slot * context_.layout.replicas() + replica_of(context_.layout, context_.at);
    timed("forward", action.slot, [&] {
      auto batch = batch_of(source, step * work.global_batch + micro_batch * work.micro_batch);
      stage_->forward(slot, std::move(batch), micro_batch, valid_tokens, last);
    });
  }
}

// A tied embedding on two stages: each sends its use's sum to the other, both add in order of use.
void RankTrainer::add_tied_use(UnitGradient& gradient) {
  Tensor other = model::make_float(gradient.sum.sizes());
  int64_t peer = 1 - tied_->rank();
  check(tied_->send(peer, model::bytes(gradient.sum)));
  check(tied_->recv(peer, model::mutable_bytes(other)));
  if (tied_->rank() == 1) std::swap(gradient.sum, other);
  kernels::add_into(gradient.sum, other);
}

std::vector<UnitGradient> RankTrainer::collect_gradients() {
  std::vector<UnitGradient> gradients;
  for (Use& use : stage_->uses()) {
    Tensor sum = use.sink->finish();
    bool second_use = !gradients.empty() && use.unit == gradients.front().unit;
    if (second_use)
      kernels::add_into(gradients.front().sum, sum);
    else
      gradients.push_back({use.unit, std::move(sum)});
  }
  if (tied_) add_tied_use(context_.first_stage() ? gradients.front() : gradients.back());
  return gradients;
}

ExactSum RankTrainer::squared_norm(const std::vector<UnitGradient>& gradients) const {
  ExactSum sum;
  for (const UnitGradient& gradient : gradients)
    for (const SlicePart& part : slice_parts(*gradient.unit))
      if (part.tensor->primary) kernels::sum_of_squares(part.of(gradient.sum), sum.limbs());
  return sum;
}

void RankTrainer::update(int64_t step, double scale, const std::vector<UnitGradient>& gradients) {
  const OptimizerConfig& config = options_.optimizer;
  kernels::AdamW options{.learning_rate = learning_rate_at(config, step, options_.total_steps),
                         .beta1 = config.beta1,
                         .beta2 = config.beta2,
                         .epsilon = config.epsilon,
                         .weight_decay = 0,
                         .step = step + 1};
  for (const UnitGradient& gradient : gradients) {
    for (const SlicePart& part : slice_parts(*gradient.unit)) {
      options.weight_decay = part.tensor->spec.decays() ? config.weight_decay : 0;
      Tensor master = part.of(gradient.unit->master), m = part.of(gradient.unit->moment1),
             v = part.of(gradient.unit->moment2), none;
      kernels::adamw(options, scale, part.of(gradient.sum), master, m, v, none);
    }
    gradient.unit->publish();
  }
}

void RankTrainer::fill_report(ScalarSums& sums, StepReport& report) const {
  double nats = sums.next_exact();
  report.tokens = sums.next();
  report.loss = report.tokens > 0 ? nats / static_cast<double>(report.tokens) : 0;
  report.gradient_norm = std::sqrt(sums.next_exact());
  double balance = sums.next_exact();
  if (context_.spec.moe.experts > 0) report.aux_loss = balance * model::balance_loss_factor(context_);
  for (int64_t expert = 0; expert < context_.spec.moe.experts; ++expert)
    report.expert_tokens.push_back(sums.next());
  for (int64_t rank = 0; rank < context_.layout.processes(); ++rank) {
    RankMemory memory;
    for (int64_t* bytes :
         {&memory.weights, &memory.optimizer, &memory.gradients_peak, &memory.peak, &memory.step_peak})
      *bytes = sums.next();
    report.memory.push_back(memory);
  }
}

TrafficCounters traffic(const std::vector<Group*>& groups) {
  TrafficCounters sum;
  for (Group* group : groups) {
    TrafficCounters one = group->counters();
    sum.bytes_sent += one.bytes_sent;
    sum.exposed_s += one.exposed_s;
    sum.busy_s += one.busy_s;
  }
  return sum;
}

Result<StepReport> RankTrainer::step(int64_t step, const data::SampleSource& source) try {
  if (source.seq() != context_.work.seq)
    return invalid("samples have {} tokens, the work has seq={}", source.seq(), context_.work.seq);
  step_start_ = Clock::now();
  timeline_.clear();
  memory_.begin(stage_->units());
  stage_->begin_step();
  auto groups = all_groups(context_, tied_.get());
  TrafficCounters before = traffic(groups);
  StepReport report{.step = step,
                    .learning_rate = learning_rate_at(options_.optimizer, step, options_.total_steps)};

  int64_t valid_tokens = 0;
  timed("count", -1, [&] { valid_tokens = count_valid_tokens(step, source); });
  if (valid_tokens == 0) return invalid("step {}: no token of the global batch has a target", step);
  run_schedule(step, source, valid_tokens);

  std::vector<UnitGradient> gradients;
  timed("reduce", -1, [&] {
    gradients = collect_gradients();
    ScalarSums sums;
    sums.add(stage_->loss().nats);
    sums.add(stage_->loss().tokens);
    sums.add(squared_norm(gradients));
    sums.add(stage_->moe().balance);
    auto counts = stage_->moe().expert_tokens;
    counts.resize(static_cast<size_t>(context_.spec.moe.experts), 0);
    for (int64_t count : counts) sums.add(count);
    for (int64_t rank = 0; rank < context_.layout.processes(); ++rank) {
      RankMemory mine = rank == context_.rank ? memory() : RankMemory();
      for (int64_t bytes : {mine.weights, mine.optimizer, mine.gradients_peak, mine.peak, mine.step_peak})
        sums.add(bytes);
    }
    sums.reduce(*context_.groups.world);
    fill_report(sums, report);
  });
  if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm))
    return make_error(ErrorCode::data_loss,
                      "step {}: loss {} with gradient norm {} is not finite; lower optimizer.learning_rate, or "
                      "resume from an earlier checkpoint",
                      step, report.loss, report.gradient_norm);
  double clip = options_.optimizer.clip_norm, scale = 1;
  if (clip > 0 && report.gradient_norm > clip) scale = clip / report.gradient_norm;
  timed("optimizer", -1, [&] { update(step, scale, gradients); });
  memory_.note();
  if (options_.keep_fingerprints) {
    kept_gradients_ = std::move(gradients);
    make_fingerprints(report.loss);
  }
  timelines_ = gather_timelines(*context_.groups.world, timeline_);
  TrafficCounters after = traffic(groups);
  report.bytes_sent = after.bytes_sent - before.bytes_sent;
  report.exposed_comm_s = after.exposed_s - before.exposed_s;
  report.hidden_comm_s = std::max(0.0, after.busy_s - before.busy_s - report.exposed_comm_s);
  report.seconds = seconds_since(step_start_);
  return report;
} catch (const model::Failure& failure) {
  return failure.error().within(fmt::format("rank {}, step {}", options_.rank, step));
} catch (const std::exception& error) {  // libtorch
  return make_error(ErrorCode::internal, "rank {}, step {}: {}", options_.rank, step, error.what());
}

Result<double> RankTrainer::evaluate(const data::SampleSource& source, int64_t first, int64_t count) try {
  step_start_ = Clock::now();
  stage_->begin_step();
  int64_t replicas = context_.layout.replicas(), size = context_.work.micro_batch;
  int64_t rounds = (count + size * replicas - 1) / (size * replicas);
  for (int64_t slot = 0; slot < rounds; ++slot) {
    int64_t micro_batch = slot * replicas + replica_of(context_.layout, context_.at);
    Slot state;
    timed("evaluate", slot,
          [&] { stage_->forward(state, batch_of(source, first + micro_batch * size), micro_batch, 0, false); });
  }
  ScalarSums sums;
  sums.add(stage_->loss().nats);
  sums.add(stage_->loss().tokens);
  sums.reduce(*context_.groups.world);
  double nats = sums.next_exact();
  return nats / static_cast<double>(std::max<int64_t>(1, sums.next()));
} catch (const model::Failure& failure) {
  return failure.error().within(fmt::format("rank {}, evaluation", options_.rank));
} catch (const std::exception& error) {
  return make_error(ErrorCode::internal, "rank {}, evaluation: {}", options_.rank, error.what());
}

// One piece per box of a slice.
void add_pieces(const model::Unit& unit, const Tensor& slice, StateKind kind, std::vector<Piece>& pieces) {
  for (const SlicePart& part : slice_parts(unit)) {
    int64_t at = 0;
    for (const Extent& box : extents_of_range(part.tensor->box, part.begin_in_tensor, part.end_in_tensor)) {
      Tensor values = part.of(slice).narrow(0, at, box.elements());
      pieces.push_back({part.tensor->spec.name, kind, box, values, part.tensor->primary});
      at += box.elements();
    }
  }
}

std::vector<Piece> RankTrainer::state() {
  std::vector<Piece> pieces;
  for (auto& unit : stage_->units().all) {
    add_pieces(*unit, unit->master, StateKind::master, pieces);
    add_pieces(*unit, unit->moment1, StateKind::moment1, pieces);
    add_pieces(*unit, unit->moment2, StateKind::moment2, pieces);
  }
  return pieces;
}

std::vector<Piece> RankTrainer::gradients() {
  std::vector<Piece> pieces;
  for (const UnitGradient& gradient : kept_gradients_)
    add_pieces(*gradient.unit, gradient.sum, StateKind::master, pieces);
  return pieces;
}

Status RankTrainer::restore(PieceReader& reader) try {
  for (Piece& piece : state())
    TESSERA_RETURN_IF_ERROR(reader.read(piece.tensor, piece.kind, piece.box, piece.values));
  for (auto& unit : stage_->units().all) unit->publish();
  return {};
} catch (const model::Failure& failure) {
  return failure.error().within(fmt::format("rank {}, restore", options_.rank));
} catch (const std::exception& error) {
  return make_error(ErrorCode::internal, "rank {}, restore: {}", options_.rank, error.what());
}

uint64_t RankTrainer::slice_sum(const model::Unit& unit, const Tensor& slice) const {
  uint64_t sum = 0;
  for (const SlicePart& part : slice_parts(unit)) {
    if (!part.tensor->primary) continue;
    uint64_t key = name_key(part.tensor->spec.name);
    for_each_run(part, [&](int64_t index, int64_t at, int64_t count) {
      sum += element_sum(key, slice, part.begin_in_slice + at, index, count);
    });
  }
  return sum;
}

Result<std::string> RankTrainer::weights_hash() try {
  uint64_t sum = 0;
  for (auto& unit : stage_->units().all) sum += slice_sum(*unit, unit->master);
  auto total = static_cast<int64_t>(sum);
  check(context_.groups.world->all_reduce_sum({&total, 1}));
  return fmt::format("{:016x}", static_cast<uint64_t>(total));
} catch (const model::Failure& failure) {
  return failure.error().within("hash of the weights");
}

RankMemory RankTrainer::memory() {
  memory_.note();
  RankMemory memory = memory_.so_far(stage_->units());
  memory.gradients_peak = gradient_bytes_peak();
  return memory;
}

void RankTrainer::make_fingerprints(double loss) {
  auto tensors = inventory(context_.spec);
  std::vector<int64_t> sums(tensors.size() * 2, 0);
  std::unordered_map<std::string, size_t> place;
  for (size_t i = 0; i < tensors.size(); ++i) place[tensors[i].name] = i;
  auto add = [&](const model::Unit& unit, const Tensor& slice, size_t offset) {
    for (const SlicePart& part : slice_parts(unit)) {
      if (!part.tensor->primary) continue;
      for_each_run(part, [&](int64_t index, int64_t at, int64_t count) {
        auto& sum = reinterpret_cast<uint64_t&>(sums[offset + place.at(part.tensor->spec.name)]);
        sum += element_sum(0, slice, part.begin_in_slice + at, index, count);
      });
    }
  };
  for (const UnitGradient& gradient : kept_gradients_) {
    add(*gradient.unit, gradient.sum, 0);
    add(*gradient.unit, gradient.unit->master, tensors.size());
  }
  for (uint64_t sum : stage_->activation_sums) sums.push_back(static_cast<int64_t>(sum));
  check(context_.groups.world->all_reduce_sum(sums));
  fingerprints_.clear();
  auto value = [&](size_t i) { return static_cast<uint64_t>(sums[i]); };
  for (int64_t i = 0; i <= context_.spec.layers; ++i)
    fingerprints_.push_back({"forward", i == 0 ? "embedding" : fmt::format("layers.{}", i - 1),
                             value(2 * tensors.size() + static_cast<size_t>(i))});
  fingerprints_.push_back({"loss", "", std::bit_cast<uint64_t>(loss)});
  for (size_t i = tensors.size(); i-- > 0;) fingerprints_.push_back({"gradient", tensors[i].name, value(i)});
  for (size_t i = 0; i < tensors.size(); ++i)
    fingerprints_.push_back({"update", tensors[i].name, value(tensors.size() + i)});
}

void RankTrainer::abort(Error error) {
  for (Group* group : all_groups(context_, tied_.get()))
    if (group) group->abort(error);
}

std::string RankTrainer::current_operation() const {
  std::string text;
  {
    std::lock_guard lock(operation_mutex_);
    text = operation_;
  }
  for (Group* group : all_groups(const_cast<model::Context&>(context_), tied_.get())) {
    std::string operation = group->current_operation();
    if (!operation.empty()) return text.empty() ? operation : text + ": " + operation;
  }
  return text;
}

}  // namespace

Result<std::unique_ptr<Trainer>> Trainer::create(TrainerOptions options) try {
  auto trainer = std::make_unique<RankTrainer>(std::move(options));
  TESSERA_RETURN_IF_ERROR(trainer->open());
  return std::unique_ptr<Trainer>(std::move(trainer));
} catch (const model::Failure& failure) {
  return failure.error().within("making the trainer");
} catch (const std::exception& error) {
  return make_error(ErrorCode::internal, "making the trainer: {}", error.what());
}

}  // namespace tessera::train
