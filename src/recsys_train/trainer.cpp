#include "recsys_train/trainer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <deque>

#include "core/clock.h"
#include "core/nearest.h"
#include "recsys_train/pipeline.h"

namespace tessera::recsys_train {
namespace {

std::vector<int64_t> bounds_of(const TrainerOptions& options, int64_t groups) {
  std::vector<int64_t> bounds(static_cast<size_t>(groups), options.staleness);
  for (size_t g = 0; g < bounds.size() && g < options.group_staleness.size(); ++g)
    if (options.group_staleness[g] >= 0) bounds[g] = options.group_staleness[g];
  if (options.mode == Mode::sync) bounds.assign(bounds.size(), 0);
  return bounds;
}

std::span<float> floats(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

Error torch_error(const std::exception& exception) {
  const auto* torch = dynamic_cast<const c10::Error*>(&exception);
  return make_error(ErrorCode::internal, "libtorch failed: {}",
                    torch != nullptr ? torch->what_without_backtrace() : exception.what());
}

}  // namespace

Result<Mode> parse_mode(std::string_view text) {
  if (text == "sync") return Mode::sync;
  if (text == "hybrid") return Mode::hybrid;
  if (text == "async") return Mode::async;
  return invalid("train.mode: got '{}', expected sync, hybrid or async{}", text,
                 did_you_mean(text, {"sync", "hybrid", "async"}));
}

const char* to_string(Mode mode) {
  return mode == Mode::sync ? "sync" : mode == Mode::hybrid ? "hybrid" : "async";
}

Trainer::Trainer(TrainerParts parts, TrainerOptions options)
    : parts_(std::move(parts)),
      options_(std::move(options)),
      gate_(bounds_of(options_, parts_.plan.num_groups)) {}

// One batch on its way through the stages.
struct Trainer::Work {
  recsys_data::Batch batch;
  Lookup lookup;
  at::Tensor numeric, labels, pooled, wide;
  DenseModel::Gradients gradients;
  int64_t step = 0;
};

// The next batch of this trainer: of each round of batches it takes the one of its rank, and the others are
// read and dropped.
Result<bool> Trainer::load(recsys_data::Source& source, Work& work) {
  const int64_t ranks = parts_.trainers ? parts_.trainers->size() : 1;
  const int64_t rank = parts_.trainers ? parts_.trainers->rank() : 0;
  recsys_data::Batch other;
  for (int64_t r = 0; r < ranks; ++r) {
    recsys_data::Batch& batch = r == rank ? work.batch : other;
    TESSERA_RETURN_IF_ERROR(source.next(options_.batch, batch));
    if (batch.rows == 0) return false;
  }
  return true;
}

Status Trainer::look_up(Work& work, Deduplicator& deduplicator, recsys::Access access) {
  deduplicator.run(work.batch, work.lookup);
  for (int64_t group = 0; group < parts_.plan.num_groups; ++group) {
    if (access == recsys::Access::train) TESSERA_RETURN_IF_ERROR(gate_.enter(group));
    TESSERA_RETURN_IF_ERROR(fetch(*parts_.servers, parts_.plan, group, access, work.lookup));
  }
  prepare(work);
  return {};
}

void Trainer::prepare(Work& work) const {
  const int64_t rows = work.batch.rows, slots = static_cast<int64_t>(parts_.plan.slots.size());
  const int64_t numbers = rows == 0 ? 0 : static_cast<int64_t>(work.batch.numeric.size()) / rows;
  work.numeric = at::from_blob(work.batch.numeric.data(), {rows, numbers}, at::kFloat);
  work.labels = at::from_blob(work.batch.labels.data(), {rows}, at::kFloat);
  work.pooled = at::empty({rows, slots, parts_.plan.dim}, at::kFloat);
  if (parts_.plan.wide) work.wide = at::empty({rows, slots}, at::kFloat);
  pool(parts_.plan, work.lookup, floats(work.pooled),
       parts_.plan.wide ? floats(work.wide) : std::span<float>());
}

Result<StepReport> Trainer::dense_step(Work& work) {
  auto start = Clock::now();
  parts_.model->forward(work.numeric, work.pooled, work.wide);
  work.gradients = parts_.model->backward(work.labels);
  StepReport report{.step = step_, .rows = work.batch.rows, .loss = work.gradients.loss};
  report.dense_s = seconds_since(start);
  if (parts_.trainers && parts_.trainers->size() > 1) {
    auto reduce_start = Clock::now();
    TESSERA_RETURN_IF_ERROR(
        all_reduce_mean(*parts_.trainers, floats(parts_.model->parameters().flat_gradients())));
    report.reduce_s = seconds_since(reduce_start);
  }
  auto update_start = Clock::now();
  update_dense();
  report.dense_s += seconds_since(update_start);
  work.step = step_++;
  return report;
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

Status Trainer::apply(int64_t group, GroupRows& rows, int64_t step) {
  Status status = update(*parts_.servers, parts_.plan, group, rows, {.step = static_cast<uint64_t>(step)});
  if (status.ok()) gate_.applied(group);
  return status;
}

Result<int64_t> Trainer::run_in_order(recsys_data::Source& source,
                                      const std::function<void(const StepReport&)>& on_step) {
  struct Late {
    GroupRows rows;
    int64_t step;
  };
  std::vector<std::deque<Late>> late(static_cast<size_t>(parts_.plan.num_groups));
  auto apply_down_to = [&](size_t group, int64_t remaining) -> Status {
    for (; static_cast<int64_t>(late[group].size()) > remaining; late[group].pop_front())
      TESSERA_RETURN_IF_ERROR(
          apply(static_cast<int64_t>(group), late[group].front().rows, late[group].front().step));
    return {};
  };
  Deduplicator deduplicator(parts_.plan);
  int64_t rows = 0;
  for (Work work;;) {
    TESSERA_ASSIGN_OR_RETURN(bool more, load(source, work));
    if (!more) break;
    for (size_t g = 0; g < late.size(); ++g)
      TESSERA_RETURN_IF_ERROR(apply_down_to(g, gate_.bound(static_cast<int64_t>(g))));
    TESSERA_RETURN_IF_ERROR(look_up(work, deduplicator, recsys::Access::train));
    TESSERA_ASSIGN_OR_RETURN(StepReport report, dense_step(work));
    unpool(parts_.plan, floats(work.gradients.pooled),
           parts_.plan.wide ? floats(work.gradients.wide) : std::span<float>(), work.lookup);
    for (size_t g = 0; g < late.size(); ++g) late[g].push_back({std::move(work.lookup.groups[g]), work.step});
    rows += report.rows;
    if (on_step) on_step(report);
  }
  for (size_t g = 0; g < late.size(); ++g) TESSERA_RETURN_IF_ERROR(apply_down_to(g, 0));
  return rows;
}

Result<int64_t> Trainer::run_pipelined(recsys_data::Source& source,
                                       const std::function<void(const StepReport&)>& on_step) {
  auto deduplicator = std::make_shared<Deduplicator>(parts_.plan);
  int64_t rows = 0;
  PipelineStages<Work> stages;
  stages.load = [&](Work& work) { return load(source, work); };
  stages.look_up = [&, deduplicator](Work& work) {
    return look_up(work, *deduplicator, recsys::Access::train);
  };
  stages.compute = [&](Work& work, double wait_s) -> Status {
    TESSERA_ASSIGN_OR_RETURN(StepReport report, dense_step(work));
    report.wait_s = wait_s;
    rows += report.rows;
    if (on_step) on_step(report);
    return {};
  };
  stages.update = [&](Work& work) -> Status {
    unpool(parts_.plan, floats(work.gradients.pooled),
           parts_.plan.wide ? floats(work.gradients.wide) : std::span<float>(), work.lookup);
    for (int64_t g = 0; g < parts_.plan.num_groups; ++g)
      TESSERA_RETURN_IF_ERROR(apply(g, work.lookup.groups[static_cast<size_t>(g)], work.step));
    return {};
  };
  stages.abort = [&](const Error& error) { gate_.abort(error); };
  int64_t largest = 0;
  for (int64_t g = 0; g < parts_.plan.num_groups; ++g) largest = std::max(largest, gate_.bound(g));
  TESSERA_RETURN_IF_ERROR(run_pipeline(stages, options_.prefetch, largest));
  return rows;
}

Result<int64_t> Trainer::epoch(recsys_data::Source& source, int64_t number,
                               const std::function<void(const StepReport&)>& on_step) {
  TESSERA_RETURN_IF_ERROR(source.start_epoch(number));
  try {
    c10::InferenceMode no_autograd;
    return options_.deterministic ? run_in_order(source, on_step) : run_pipelined(source, on_step);
  } catch (const std::exception& exception) {
    return torch_error(exception);
  }
}

Result<std::vector<float>> Trainer::score(const recsys_data::Batch& batch) {
  try {
    c10::InferenceMode no_autograd;
    Work work;
    work.batch = batch;
    Deduplicator deduplicator(parts_.plan);
    TESSERA_RETURN_IF_ERROR(look_up(work, deduplicator, recsys::Access::read));
    at::Tensor logits = parts_.model->forward(work.numeric, work.pooled, work.wide).contiguous();
    auto values = floats(logits);
    return std::vector<float>(values.begin(), values.end());
  } catch (const std::exception& exception) {
    return torch_error(exception);
  }
}

Result<Quality> Trainer::evaluate(recsys_data::Source& source) {
  constexpr int64_t kRows = 2048;
  std::vector<float> logits, labels;
  TESSERA_RETURN_IF_ERROR(source.start_epoch(0));
  for (recsys_data::Batch batch;;) {
    TESSERA_RETURN_IF_ERROR(source.next(kRows, batch));
    if (batch.rows == 0) break;
    TESSERA_ASSIGN_OR_RETURN(auto part, score(batch));
    logits.insert(logits.end(), part.begin(), part.end());
    labels.insert(labels.end(), batch.labels.begin(), batch.labels.end());
  }
  return quality_of(logits, labels);
}

}  // namespace tessera::recsys_train
