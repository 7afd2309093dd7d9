#include "plan/training/pipeline_time.h"

#include <algorithm>

#include "core/numbers.h"

namespace tessera::plan {
namespace {

// What the slowest stage waits for, with stages all like the mean one.
double even_bubble(PipelineKind kind, double stages, double virtual_stages, const PipelineStage& mean) {
  double weight = mean.backward_weight, full = mean.total();
  switch (kind) {
    case PipelineKind::gpipe:
    case PipelineKind::one_f_one_b:
      return (stages - 1) * full / virtual_stages;
    case PipelineKind::zb_h1:
      return (stages - 1) * std::max(0.0, full - 2 * weight);
    case PipelineKind::zb_h2:
      return (stages - 1) * std::max(0.0, full - 3 * weight);
    case PipelineKind::zb_v:
      // Of the table, whose order is that for equal times: (F + B - 2 W) / 2 of the paper where F = B.
      return (stages - 1) *
             std::max({0.0, std::max(mean.forward, mean.backward_input) - weight, (weight - mean.forward) / 2});
    case PipelineKind::v_half:
      return (stages - 1) * full / 3;
    case PipelineKind::v_min:
      return (stages - 1) * full * 2 / 3;
    case PipelineKind::dualpipe: {
      double pair = full - mean.pair_saves, backward = mean.backward_input + weight;
      return std::max(0.0, (stages / 2 - 1) * (pair + backward - 3 * weight));
    }
  }
  return 0;
}

PipelineStage mean_of(const std::vector<EqualStages>& stages, double count) {
  PipelineStage mean;
  for (const auto& [time, times] : stages) {
    mean.forward += times * time.forward;
    mean.backward_input += times * time.backward_input;
    mean.backward_weight += times * time.backward_weight;
    mean.pair_saves += times * time.pair_saves;
  }
  mean.forward /= count, mean.backward_input /= count, mean.backward_weight /= count;
  mean.pair_saves /= count;
  return mean;
}

// Beyond the start and the drain each further slot takes the same time: so many tell how long.
constexpr int64_t kSteadyFrom = 4, kSteadyTo = 6;  // slots, in numbers of stages

double busy_s(const std::vector<Action>& row, const std::vector<ActionSpan>& spans) {
  double busy = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    busy += spans[i].end - spans[i].start;
    if (row[i].paired) ++i;  // the other half of a pair runs at the same time
  }
  return busy;
}

// From the first to the last action of the stage that takes longest.
double longest_s(const std::vector<std::vector<ActionSpan>>& all) {
  double longest = 0;
  for (const auto& stage : all)
    if (!stage.empty()) longest = std::max(longest, stage.back().end - stage.front().start);
  return longest;
}

PipelineTime time_of_table(PipelineKind kind, int64_t chunks, int64_t slots, int64_t stages,
                           const std::vector<PieceTime>& of_piece, double send_s) {
  Schedule schedule = make_schedule(kind, stages, chunks, slots);
  auto at_once = spans(schedule, of_piece, 0);
  PipelineTime time;
  for (size_t stage = 0; stage < at_once.size(); ++stage)
    time.busy = std::max(time.busy, busy_s(schedule.table[stage], at_once[stage]));
  double waiting = longest_s(at_once);
  time.seconds = send_s > 0 ? std::max(waiting, longest_s(spans(schedule, of_piece, send_s))) : waiting;
  time.sends = time.seconds - waiting;
  time.bubble = waiting - time.busy;
  return time;
}

}  // namespace

PipelineTime pipeline_closed_form(PipelineKind kind, int64_t virtual_stages, int64_t micro_batches,
                                  const std::vector<EqualStages>& stages, double send_s) {
  double slowest = 0, count = 0, chunks = real(virtual_stages), saves = 0;
  for (const auto& [time, times] : stages) {
    if (time.total() > slowest) slowest = time.total(), saves = time.pair_saves;
    count += times;
  }
  PipelineStage mean = mean_of(stages, count);
  // The others than the slowest, seen as count - 1 stages of their mean.
  if (count > 1) {
    double others = (count * mean.total() - slowest) / (count - 1);
    double scale = mean.total() > 0 ? others / mean.total() : 1;
    mean.forward *= scale, mean.backward_input *= scale, mean.backward_weight *= scale;
  }
  PipelineTime time;
  // DualPipe: all but the warm-up and the drain run as pairs.
  double pairs = kind == PipelineKind::dualpipe ? std::max(0.0, real(micro_batches) - 1.5 * count + 1) : 0;
  time.busy = real(micro_batches) * slowest - pairs * saves;
  time.bubble = even_bubble(kind, count, chunks, mean);
  // Each chunk of each micro-batch is sent on and its gradient comes back; the first and the last wait for all
  // hops.
  time.sends = count > 1 ? 2 * send_s * (real(micro_batches) * chunks + count - 2) : 0;
  time.seconds = time.busy + time.bubble + time.sends;
  return time;
}

PipelineTime pipeline_closed_form(PipelineKind kind, int64_t virtual_stages, int64_t micro_batches,
                                  const std::vector<PipelineStage>& stages, double send_s) {
  std::vector<EqualStages> each;
  for (const PipelineStage& stage : stages) each.push_back({stage, 1});
  return pipeline_closed_form(kind, virtual_stages, micro_batches, each, send_s);
}

PipelineTime pipeline_recurrence(PipelineKind kind, int64_t chunks, int64_t micro_batches, int64_t stages,
                                 const std::vector<PieceTime>& of_piece, double send_s) {
  int64_t from = kSteadyFrom * stages + micro_batches % (2 * stages),
          to = from + (kSteadyTo - kSteadyFrom) * stages;
  if (micro_batches <= to) return time_of_table(kind, chunks, micro_batches, stages, of_piece, send_s);
  PipelineTime time = time_of_table(kind, chunks, from, stages, of_piece, send_s);
  PipelineTime later = time_of_table(kind, chunks, to, stages, of_piece, send_s);
  double rounds = real(micro_batches - from) / real(to - from);
  for (double PipelineTime::*part :
       {&PipelineTime::seconds, &PipelineTime::bubble, &PipelineTime::sends, &PipelineTime::busy})
    time.*part += rounds * (later.*part - time.*part);
  return time;
}

}  // namespace tessera::plan
