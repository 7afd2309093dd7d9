#include "plan/training/step_time.h"

#include <algorithm>
#include <cmath>

#include "core/numbers.h"
#include "plan/training/data_parallel.h"
#include "plan/training/interval.h"
#include "plan/training/step_terms.h"

namespace tessera::plan {
namespace {

// Hides communication as the software does. Sharded parameters travel beside the layer's computation.
ClockTime on_the_clock(const LayerTime& time, double sharded_s, const TrainingOptions& options,
                       const SoftwareGeneration& software) {
  ClockTime clock;
  double compute = time.compute();
  sharded_s /= software.sharded_rate;
  clock.tp = time.tp * software.tp_exposed * (options.overlap_tp ? kNamedOverlapLeft : 1);
  clock.ep = time.ep * software.ep_exposed * (options.overlap_ep ? kNamedOverlapLeft : 1);
  // A ring of keys and values hides behind attention, except its first block.
  double behind = 0.9 * time.attention;
  clock.cp = std::max(0.1 * time.cp, time.cp - behind);
  double hidden = (time.tp - clock.tp) + (time.ep - clock.ep) + (time.cp - clock.cp);
  clock.dp = std::max(0.0, sharded_s - compute) + software.dp_exposed * std::min(sharded_s, compute);
  hidden += std::max(0.0, sharded_s - clock.dp);
  clock.compute = compute + (software.contention - 1) * std::min(hidden, compute);
  clock.host = std::max(0.0, time.host - clock.total());
  return clock;
}

StageClock price(const TrainingSetup& setup, const GpuCluster& cluster, const SoftwareGeneration& software,
                 const LayerTimes& times) {
  StageClock clock;
  clock.parameters = {times.parameters, times.expert_parameters};
  ShardedLayerExchange sharded = sharded_layer_exchange(setup, cluster, clock.parameters);
  clock.forward = on_the_clock(times.forward, sharded.forward, setup.options, software);
  clock.backward = on_the_clock(times.backward, sharded.backward, setup.options, software);
  return clock;
}

void add(StageClock& sum, const StageClock& part, double times) {
  sum.forward.add(part.forward, times), sum.backward.add(part.backward, times);
  sum.parameters.dense += times * part.parameters.dense;
  sum.parameters.experts += times * part.parameters.experts;
}

// A third of forward plus backward is the weight gradients': what zero-bubble schedules move.
// A pair of DualPipe hides the all-to-all of one behind the computation of the other, as an overlap by name
// does.
PipelineStage stage_time(const TrainingSetup& setup, const StageClock& clock) {
  double backward = clock.backward.total();
  double weight = std::min(clock.backward.compute / 2, backward / 2);
  bool hides = setup.layout.schedule == PipelineKind::dualpipe && !setup.options.overlap_ep;
  double saves = hides ? (1 - kNamedOverlapLeft) * (clock.forward.ep + clock.backward.ep) : 0;
  return {clock.forward.total(), backward - weight, weight, saves};
}

// Of each piece of the model in order.
std::vector<PieceTime> piece_times(const TrainingSetup& setup, const std::vector<StageClock>& parts) {
  std::vector<PieceTime> times;
  for (const LayerRange& piece : setup.pieces()) {
    StageClock clock;
    for (int64_t index = piece.first; index < piece.last; ++index)
      add(clock, parts[static_cast<size_t>(setup.model.order[static_cast<size_t>(index)])], 1);
    if (piece.first == 0) add(clock, parts[parts.size() - 2], 1);
    if (piece.last == setup.model.layers() && piece.last > piece.first) add(clock, parts.back(), 1);
    times.push_back(stage_time(setup, clock));
  }
  return times;
}

// What each different stage takes. DualPipe holds every layer twice; each copy sees half of the micro-batches,
// and all of the parameters.
const std::vector<StageClock>& stage_clocks(const TrainingSetup& setup, const GpuCluster& cluster,
                                            const SoftwareGeneration& software, const ModelTimes& times,
                                            const StageShapes& shapes, StepTerms& terms) {
  double share = setup.layout.schedule == PipelineKind::dualpipe ? 0.5 : 1;
  std::vector<StageClock>& parts = terms.parts;
  parts.clear();
  for (const LayerTimes& kind : times.kinds) parts.push_back(price(setup, cluster, software, kind));
  parts.push_back(price(setup, cluster, software, times.embedding));
  parts.push_back(price(setup, cluster, software, times.head));
  terms.clocks.clear();
  for (const StageShape& shape : shapes.different) {
    StageClock& clock = terms.clocks.emplace_back();
    for (size_t part = 0; part < parts.size(); ++part)
      if (shape.counts[part] > 0) add(clock, parts[part], shape.counts[part]);
    if (share != 1) clock.forward.scale(share), clock.backward.scale(share);
  }
  return terms.clocks;
}

// Collectives of gradients start while the last backward still runs; those of parameters end while the first
// forward runs. With virtual stages most chunks are ready before the last one.
double exposed_exchange_s(const TrainingSetup& setup, const SoftwareGeneration& software,
                          const StageClock& stage, const GradientExchange& time) {
  if (!setup.options.overlap_dp) return time.reduce + time.gather;
  // Interleaved: a chunk's gradients are final when its last micro-batch has passed, while the chunks before it
  // still work on a whole round of micro-batches.
  double chunks = real(setup.chunks()), rounds = std::max(1.0, real(setup.layout.pp) * (chunks - 1) / chunks);
  rounds = std::min(rounds, real(setup.micro_batches()));
  double behind_backward = rounds * stage.backward.total(), behind_forward = rounds * stage.forward.total();
  double reduce = std::max(software.dp_exposed * time.reduce, time.reduce - behind_backward);
  double gather = std::max(software.dp_exposed * time.gather, time.gather - behind_forward);
  return reduce + gather;
}

void fill_rates(const TrainingSetup& setup, const GpuCluster& cluster, double flops_per_token,
                TrainingStep& step) {
  double tokens = real(setup.work.global_batch * setup.work.seq), devices = real(setup.layout.devices());
  step.tokens_per_s_per_device = tokens / step.seconds / devices;
  step.model_flops = 3 * tokens * flops_per_token;
  double rate = step.model_flops / step.seconds / devices;
  step.tflops_per_device = rate / 1e12;
  step.mfu = rate / mfu_peak(cluster.device, setup.work.precision);
  step.power_share = std::clamp(step.breakdown.compute / step.seconds, 0.0, 1.0);
}

void fill_breakdown(TrainingBreakdown& sum, const StageClock& stage, double micro_batches) {
  for (const ClockTime* clock : {&stage.forward, &stage.backward}) {
    sum.compute += micro_batches * clock->compute, sum.tp += micro_batches * clock->tp;
    sum.cp += micro_batches * clock->cp, sum.ep += micro_batches * clock->ep;
    sum.dp += micro_batches * clock->dp, sum.host += micro_batches * clock->host;
  }
}

}  // namespace

double mfu_peak(const Device& device, TrainingPrecision precision) {
  return device.peak(is_8_bit_or_less(precision) ? MathFormat::fp8 : MathFormat::bf16);
}

namespace {

enum class PipelineBy { closed_form, recurrence };

TrainingStep step_time(const TrainingSetup& setup, const GpuCluster& cluster,
                       const SoftwareGeneration& software, StepTerms& terms, PipelineBy by) {
  const ModelTimes& times = terms.times(setup, cluster, software);
  const StageShapes& shapes = terms.shapes(setup);
  const std::vector<StageClock>& clocks = stage_clocks(setup, cluster, software, times, shapes, terms);
  std::vector<EqualStages>& stages = terms.stages;
  stages.clear();
  size_t slowest = 0;
  for (size_t shape = 0; shape < clocks.size(); ++shape) {
    stages.push_back({stage_time(setup, clocks[shape]), shapes.stages[shape]});
    if (stages[shape].time.total() > stages[slowest].time.total()) slowest = shape;
  }
  TrainingStep step;
  const TrainingLayout& layout = setup.layout;
  double micro_batches = real(setup.micro_batches());
  RankGroup neighbours{.ranks = 2, .stride = layout.devices() / layout.pp};
  if (layout.pp > 1)
    step.send_s =
        software.pp_exposed * collective_s(cluster, CollectiveKind::send, neighbours, times.boundary_bytes);
  PipelineTime pipeline;
  if (by == PipelineBy::recurrence) {
    step.pieces = piece_times(setup, terms.parts);
    pipeline = pipeline_recurrence(layout.schedule, setup.chunks(), setup.micro_batches(), layout.pp,
                                   step.pieces, step.send_s);
  } else {
    pipeline =
        pipeline_closed_form(layout.schedule, setup.chunks(), setup.micro_batches(), stages, step.send_s);
  }
  TrainingBreakdown& parts = step.breakdown;
  fill_breakdown(parts, clocks[slowest], micro_batches);
  parts.bubble = pipeline.bubble, parts.pp = pipeline.sends;
  parts.ep -= micro_batches * stages[slowest].time.total() - pipeline.busy;  // what pairs hide
  // The stage that ends the step: the first, whose drain is last, or the one with the most parameters.
  double exchange = 0, optimizer = 0;
  for (const StageClock& clock : clocks) {
    exchange = std::max(
        exchange, exposed_exchange_s(setup, software, clock, terms.exchange(setup, cluster, clock.parameters)));
    optimizer = std::max(optimizer, optimizer_s(setup, cluster, clock.parameters));
  }
  parts.dp += exchange;
  parts.optimizer += optimizer;
  parts.host += software.step_s;
  step.seconds = parts.total();
  step.low = step.seconds / (1 + software.half_width), step.high = step.seconds * (1 + software.half_width);
  fill_rates(setup, cluster, terms.flops_per_token(setup), step);
  return step;
}

}  // namespace

Result<TrainingStep> training_step_time(const TrainingSetup& setup, const GpuCluster& cluster,
                                        const SoftwareGeneration& software) {
  TESSERA_RETURN_IF_ERROR(validate(setup));
  StepTerms terms;
  bool table = has_table(setup.layout.schedule);
  TrainingStep step =
      step_time(setup, cluster, software, terms, table ? PipelineBy::recurrence : PipelineBy::closed_form);
  double width = 1 + interval_half_width(software, cluster);
  step.low = step.seconds / width, step.high = step.seconds * width;
  return step;
}

TrainingStep training_step_time(const TrainingSetup& setup, const GpuCluster& cluster,
                                const SoftwareGeneration& software, StepTerms& terms) {
  return step_time(setup, cluster, software, terms, PipelineBy::closed_form);
}

}  // namespace tessera::plan
