#include "recsys_train/trainer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <deque>

#include "core/clock.h"
#include "core/nearest.h"
#include "recsys_train/pipeline.h"

namespace tessera::recsys_train {
namespace {

constexpr size_t kExtras = 2;  // behind the gradients of a part: its loss and its rows

std::span<float> floats(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

Error torch_error(const std::exception& exception) {
  const auto* torch = dynamic_cast<const c10::Error*>(&exception);
  return make_error(ErrorCode::internal, "libtorch failed: {}",
                    torch != nullptr ? torch->what_without_backtrace() : exception.what());
}

// Adds the seconds of its life.
class Stopwatch {
 public:
  explicit Stopwatch(std::atomic<double>& sum) : sum_(sum) {}
  ~Stopwatch() { sum_.fetch_add(seconds_since(start_), std::memory_order_relaxed); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  std::atomic<double>& sum_;
  Clock::time_point start_ = Clock::now();
};

// Takes `count` floats from the front.
std::span<float> take(std::span<float>& from, size_t count) {
  auto front = from.first(count);
  from = from.subspan(count);
  return front;
}

}  // namespace

Result<Mode> parse_mode(std::string_view text) {
  if (text == "sync") return Mode::sync;
  if (text == "hybrid") return Mode::hybrid;
  if (text == "async") return Mode::async;
  return invalid("got '{}', expected sync, hybrid or async{}", text,
                 did_you_mean(text, {"sync", "hybrid", "async"}));
}

const char* to_string(Mode mode) {
  return mode == Mode::sync ? "sync" : mode == Mode::hybrid ? "hybrid" : "async";
}

StalenessBounds staleness_bounds(const TrainerOptions& options, int64_t groups) {
  std::vector<int64_t> bounds(static_cast<size_t>(groups), options.staleness);
  for (size_t g = 0; g < bounds.size() && g < options.group_staleness.size(); ++g)
    if (options.group_staleness[g] >= 0) bounds[g] = options.group_staleness[g];
  if (options.mode == Mode::sync) bounds.assign(bounds.size(), 0);
  return {std::move(bounds), options.staleness_warmup};
}

GradientExchange exchange_over(Group& group) {
  return [&group](int64_t, std::span<float> all) {
    const size_t mine = all.size() / static_cast<size_t>(group.size());
    auto own = all.subspan(mine * static_cast<size_t>(group.rank()), mine);
    return group.all_gather(std::as_bytes(own), std::as_writable_bytes(all));
  };
}

// One batch on its way through the stages.
struct Trainer::Part {
  BatchKey key;
  DenseInput in;
  at::Tensor numeric, labels, pooled, wide, lengths;
  DenseModel::Gradients out;
  std::span<const float> pooled_gradient, wide_gradient;  // in `out` or in the trainer's memory
};

// What this trainer does in one step.
struct Trainer::Work {
  int64_t step = 0, round = 0;
  std::vector<Part> parts;
};

Trainer::Trainer(TrainerParts parts, TrainerOptions options)
    : parts_(std::move(parts)),
      options_(std::move(options)),
      gate_(staleness_bounds(options_, parts_.plan.num_groups)) {
  if (options_.parts == 0) options_.parts = parts_.trainers;
  TESSERA_REQUIRE(options_.parts % parts_.trainers == 0, "{} parts of a step over {} trainers", options_.parts,
                  parts_.trainers);
  dense_.resize(static_cast<size_t>(options_.parts * dense_floats()));
  if (parts_.memory == nullptr || parts_.memory->fresh()) return;
  set_state(parts_.memory->state(), parts_.memory->standing());
  took_over_ = true;
}

TrainerMemory::Shape memory_shape(const TrainerParts& parts, const TrainerOptions& options) {
  const int64_t weights = parts.model->parameters().flat_values().numel();
  const int64_t rows = options.batch * (parts.plan.num_places() * parts.plan.dim +
                                        static_cast<int64_t>(parts.plan.slots.size()));
  const int64_t own = std::max<int64_t>(1, options.parts / parts.trainers);
  TrainerMemory::Shape shape{.state_floats = weights};
  for (const at::Tensor& tensor : parts.optimizer->state()) shape.state_floats += tensor.numel();
  shape.gradient_floats = own * (weights + static_cast<int64_t>(kExtras) + rows);
  shape.slots = staleness_bounds(options, parts.plan.num_groups).largest() + 2;
  return shape;
}

int64_t Trainer::dense_floats() const {
  return parts_.model->parameters().flat_values().numel() + static_cast<int64_t>(kExtras);
}
std::span<float> Trainer::dense_of(int64_t part) {
  return std::span(dense_).subspan(static_cast<size_t>(part * dense_floats()),
                                   static_cast<size_t>(dense_floats()));
}

// ---- state ----

void Trainer::for_state(const std::function<void(std::span<float>)>& visit) {
  visit(floats(parts_.model->parameters().flat_values()));
  for (const at::Tensor& tensor : parts_.optimizer->state()) visit(floats(tensor));
}

std::vector<float> Trainer::state() {
  std::vector<float> all;
  for_state([&](std::span<float> part) { all.insert(all.end(), part.begin(), part.end()); });
  return all;
}

void Trainer::set_state(std::span<const float> state, const Standing& progress) {
  const float* from = state.data();
  for_state([&](std::span<float> part) {
    TESSERA_REQUIRE(from + part.size() <= state.data() + state.size(), "a state of {} floats is too short",
                    state.size());
    std::copy_n(from, part.size(), part.begin());
    from += part.size();
  });
  standing_ = progress;
  parts_.optimizer->steps = progress.optimizer_steps;
}

void Trainer::commit() {
  standing_.optimizer_steps = parts_.optimizer->steps;
  if (parts_.memory == nullptr) return;
  std::span<float> to = parts_.memory->next_state();
  for_state([&](std::span<float> part) { std::copy(part.begin(), part.end(), take(to, part.size()).begin()); });
  parts_.memory->commit(standing_);
}

void Trainer::finish_epoch() {
  standing_ = {.epoch = standing_.epoch + 1, .step = standing_.step};
  commit();
}

// ---- stages ----

BatchKey Trainer::key_of(int64_t part, int64_t round, int64_t step) const {
  return {.split = Split::train,
          .epoch = standing_.epoch,
          .number = round * options_.parts + part,
          .rows = options_.batch,
          .last = round * options_.parts + options_.parts - 1,
          .step = step,
          .part = part};
}

Result<bool> Trainer::load(Work& work) {
  Stopwatch watch(load_s_);
  work.step = loading_step_;
  work.round = loading_round_;
  work.parts.resize(static_cast<size_t>(own_parts()));
  for (int64_t i = 0; i < own_parts(); ++i) {
    Part& part = work.parts[static_cast<size_t>(i)];
    part.key = key_of(parts_.rank * own_parts() + i, work.round, work.step);
    TESSERA_ASSIGN_OR_RETURN(int64_t rows, parts_.worker->load(part.key));
    if (rows == 0) return false;
  }
  ++loading_step_;
  ++loading_round_;
  return true;
}

Status Trainer::look_up(Work& work) {
  {
    Stopwatch watch(gate_s_);
    for (int64_t group = 0; group < parts_.plan.num_groups; ++group)
      TESSERA_RETURN_IF_ERROR(gate_.enter(group, work.step));
  }
  Stopwatch watch(look_up_s_);
  for (Part& part : work.parts) {
    TESSERA_RETURN_IF_ERROR(parts_.worker->look_up(part.key, part.in));
    prepare(part);
  }
  return {};
}

void Trainer::prepare(Part& part) const {
  DenseInput& in = part.in;
  const int64_t rows = in.rows, slots = static_cast<int64_t>(parts_.plan.slots.size());
  const int64_t numbers = rows == 0 ? 0 : static_cast<int64_t>(in.numeric.size()) / rows;
  part.numeric = at::from_blob(in.numeric.data(), {rows, numbers}, at::kFloat);
  part.labels = at::from_blob(in.labels.data(), {rows}, at::kFloat);
  part.pooled = at::from_blob(in.pooled.data(), {rows, parts_.plan.num_places(), parts_.plan.dim}, at::kFloat);
  const int64_t sequences = rows == 0 ? 0 : static_cast<int64_t>(in.lengths.size()) / rows;
  part.lengths = sequences > 0 ? at::from_blob(in.lengths.data(), {rows, sequences}, at::kFloat) : at::Tensor();
  part.wide = parts_.plan.wide ? at::from_blob(in.wide.data(), {rows, slots}, at::kFloat) : at::Tensor();
}

void Trainer::compute(Work& work) {
  for (Part& part : work.parts) {
    parts_.model->forward(part.numeric, part.pooled, part.wide, part.lengths);
    part.out = parts_.model->backward(part.labels);
    part.out.pooled = part.out.pooled.contiguous();
    if (part.out.wide.defined()) part.out.wide = part.out.wide.contiguous();
    part.pooled_gradient = floats(part.out.pooled);
    part.wide_gradient = floats(part.out.wide);
    auto dense = dense_of(part.key.part);
    auto gradients = floats(parts_.model->parameters().flat_gradients());
    std::copy(gradients.begin(), gradients.end(), dense.begin());
    dense[gradients.size()] = static_cast<float>(part.out.loss);
    dense[gradients.size() + 1] = static_cast<float>(part.in.rows);
  }
}

// What this step found out goes to the memory, and is used from there.
void Trainer::keep(Work& work) {
  Standing at = standing_;
  at.round = work.round;
  std::span<float> to = parts_.memory->draft(work.step);
  for (Part& part : work.parts) {
    auto copy = [&to](std::span<const float> from) {
      auto into = take(to, from.size());
      std::copy(from.begin(), from.end(), into.begin());
      return into;
    };
    copy(dense_of(part.key.part));
    part.pooled_gradient = copy(part.pooled_gradient);
    part.wide_gradient = copy(part.wide_gradient);
  }
  parts_.memory->keep(at);
}

void Trainer::take_kept(const TrainerMemory::Kept& kept, Work& work) {
  const size_t slots = parts_.plan.slots.size(), dense = static_cast<size_t>(dense_floats());
  std::span<const float> from = kept.gradients;
  work.step = kept.at.step;
  work.round = kept.at.round;
  work.parts.resize(static_cast<size_t>(own_parts()));
  for (int64_t i = 0; i < own_parts(); ++i) {
    Part& part = work.parts[static_cast<size_t>(i)];
    part.key = key_of(parts_.rank * own_parts() + i, work.round, work.step);
    part.key.epoch = kept.at.epoch;
    std::copy_n(from.begin(), dense, dense_of(part.key.part).begin());
    const auto rows = static_cast<size_t>(from[dense - 1]);
    part.pooled_gradient =
        from.subspan(dense, rows * static_cast<size_t>(parts_.plan.num_places() * parts_.plan.dim));
    from = from.subspan(dense + part.pooled_gradient.size());
    part.wide_gradient = from.first(parts_.plan.wide ? rows * slots : 0);
    from = from.subspan(part.wide_gradient.size());
  }
}

std::vector<float> Trainer::kept_dense(int64_t step) {
  auto kept = parts_.memory && step >= 0 ? parts_.memory->kept(step) : std::nullopt;
  if (!kept) return {};
  Work work;
  take_kept(*kept, work);
  auto first = dense_of(parts_.rank * own_parts()).begin();
  return {first, first + own_parts() * dense_floats()};
}

// The mean over parts, summed in their order.
Status Trainer::average() {
  auto sum = floats(parts_.model->parameters().flat_gradients());
  auto first = dense_of(0);
  std::copy_n(first.begin(), sum.size(), sum.begin());
  for (int64_t part = 1; part < options_.parts; ++part) {
    const float* more = dense_of(part).data();
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += more[i];
  }
  if (options_.parts == 1) return {};
  for (float& value : sum) value /= static_cast<float>(options_.parts);
  return {};
}

Result<StepReport> Trainer::dense_step(Work& work) {
  StepReport report{.step = work.step};
  auto start = Clock::now();
  auto kept = parts_.memory ? parts_.memory->kept(work.step) : std::nullopt;
  if (kept) {
    take_kept(*kept, work);  // peers may know these gradients already
  } else {
    compute(work);
    if (parts_.memory) keep(work);
  }
  report.dense_s = seconds_since(start);
  if (parts_.trainers > 1) {
    auto reduce_start = Clock::now();
    TESSERA_RETURN_IF_ERROR(parts_.exchange(work.step, dense_));
    report.reduce_s = seconds_since(reduce_start);
  }
  auto update_start = Clock::now();
  TESSERA_RETURN_IF_ERROR(average());
  update_dense();
  double loss = 0;
  for (int64_t part = 0; part < options_.parts; ++part) {
    auto extras = dense_of(part).last(kExtras);
    double exact = options_.parts == 1 && !kept ? work.parts[0].out.loss : static_cast<double>(extras[0]);
    loss += exact * static_cast<double>(extras[1]);
    report.rows += static_cast<int64_t>(extras[1]);
  }
  report.load_s = load_s_.exchange(0);
  report.look_up_s = look_up_s_.exchange(0);
  report.gate_s = gate_s_.exchange(0);
  report.update_s = update_s_.exchange(0);
  report.loss = loss / static_cast<double>(report.rows);
  standing_.step = work.step + 1;
  standing_.round = work.round + 1;
  standing_.rows += report.rows;
  standing_.loss += loss;
  commit();
  report.dense_s += seconds_since(update_start);
  if (on_dense_step) TESSERA_RETURN_IF_ERROR(on_dense_step(standing_));
  return report;
}

Status Trainer::checkpoint(int64_t step) {
  return is_checkpoint(step) && on_checkpoint ? on_checkpoint(standing_) : Status();
}

void Trainer::update_dense() {
  if (options_.mode != Mode::async || options_.dense_staleness == 0) return parts_.optimizer->step();
  at::Tensor gradients = parts_.model->parameters().flat_gradients();
  late_gradients_.push_back(gradients.clone());
  if (static_cast<int64_t>(late_gradients_.size()) <= options_.dense_staleness) return;
  gradients.copy_(late_gradients_.front());
  late_gradients_.erase(late_gradients_.begin());
  parts_.optimizer->step();
}

Status Trainer::apply(Work& work, int64_t group) {
  Stopwatch watch(update_s_);
  for (Part& part : work.parts)
    TESSERA_RETURN_IF_ERROR(
        parts_.worker->give_back(part.key, group, part.pooled_gradient, part.wide_gradient));
  for (int64_t g = 0; g < parts_.plan.num_groups; ++g)
    if (group == kAllGroups || g == group) gate_.applied(g);
  return {};
}

// Steps before standing() whose rows an earlier process may not have updated, oldest first; they count as
// looked up.
std::vector<std::shared_ptr<Trainer::Work>> Trainer::pending() {
  std::vector<std::shared_ptr<Work>> all;
  if (!std::exchange(took_over_, false)) return all;
  for (int64_t step = std::max<int64_t>(0, standing_.step - parts_.memory->slots()); step < standing_.step;
       ++step) {
    auto kept = parts_.memory->kept(step);
    if (!kept) continue;
    take_kept(*kept, *all.emplace_back(std::make_shared<Work>()));
    for (int64_t g = 0; g < parts_.plan.num_groups; ++g) gate_.take_over(g);
  }
  return all;
}

// ---- runs ----

Result<int64_t> Trainer::run_in_order(const OnStep& on_step) {
  std::vector<std::deque<std::shared_ptr<Work>>> late(static_cast<size_t>(parts_.plan.num_groups));
  auto apply_down_to = [&](size_t group, int64_t remaining) -> Status {
    for (; static_cast<int64_t>(late[group].size()) > remaining; late[group].pop_front())
      TESSERA_RETURN_IF_ERROR(apply(*late[group].front(), static_cast<int64_t>(group)));
    return {};
  };
  for (auto& work : pending())
    for (auto& queue : late) queue.push_back(work);
  int64_t rows = 0;
  for (;;) {
    auto work = std::make_shared<Work>();
    TESSERA_ASSIGN_OR_RETURN(bool more, load(*work));
    if (!more) break;
    for (size_t g = 0; g < late.size(); ++g)
      TESSERA_RETURN_IF_ERROR(
          apply_down_to(g, is_checkpoint(work->step) ? 0 : gate_.bound(static_cast<int64_t>(g), work->step)));
    TESSERA_RETURN_IF_ERROR(checkpoint(work->step));
    TESSERA_RETURN_IF_ERROR(look_up(*work));
    TESSERA_ASSIGN_OR_RETURN(StepReport report, dense_step(*work));
    for (auto& queue : late) queue.push_back(work);
    rows += report.rows;
    if (on_step) on_step(report);
  }
  for (size_t g = 0; g < late.size(); ++g) TESSERA_RETURN_IF_ERROR(apply_down_to(g, 0));
  return rows;
}

Result<int64_t> Trainer::run_pipelined(const OnStep& on_step) {
  for (auto& work : pending()) TESSERA_RETURN_IF_ERROR(apply(*work, kAllGroups));
  int64_t rows = 0;
  PipelineStages<Work> stages;
  stages.load = [&](Work& work) { return load(work); };
  stages.look_up = [&](Work& work) { return look_up(work); };
  stages.compute = [&](Work& work, double wait_s) -> Status {
    TESSERA_RETURN_IF_ERROR(checkpoint(work.step));
    TESSERA_ASSIGN_OR_RETURN(StepReport report, dense_step(work));
    report.wait_s = wait_s;
    rows += report.rows;
    if (on_step) on_step(report);
    return {};
  };
  stages.update = [&](Work& work) { return apply(work, kAllGroups); };
  stages.abort = [&](const Error& error) { gate_.abort(error); };
  TESSERA_RETURN_IF_ERROR(run_pipeline(stages, options_.prefetch, gate_.largest_bound()));
  return rows;
}

Result<int64_t> Trainer::epoch(const OnStep& on_step) {
  loading_round_ = standing_.round;
  loading_step_ = standing_.step;
  try {
    c10::InferenceMode no_autograd;
    return options_.deterministic ? run_in_order(on_step) : run_pipelined(on_step);
  } catch (const std::exception& exception) {
    return torch_error(exception);
  }
}

Result<Quality> Trainer::evaluate() {
  constexpr int64_t kRows = 2048;
  std::vector<float> logits, labels;
  try {
    c10::InferenceMode no_autograd;
    Part part;
    for (int64_t number = 0;; ++number) {
      part.key = {
          .split = Split::test, .number = number, .rows = kRows, .last = number, .step = standing_.step};
      TESSERA_RETURN_IF_ERROR(parts_.worker->look_up(part.key, part.in));
      if (part.in.rows == 0) break;
      prepare(part);
      at::Tensor out = parts_.model->forward(part.numeric, part.pooled, part.wide, part.lengths).contiguous();
      auto values = floats(out);
      logits.insert(logits.end(), values.begin(), values.end());
      labels.insert(labels.end(), part.in.labels.begin(), part.in.labels.end());
    }
  } catch (const std::exception& exception) {
    return torch_error(exception);
  }
  return quality_of(logits, labels);
}

}  // namespace tessera::recsys_train
