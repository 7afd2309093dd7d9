#include "plan/training/pipeline_time.h"

#include <algorithm>
#include <limits>

namespace tessera::plan {
namespace {

double real(int64_t value) {
  return static_cast<double>(value);
}

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
      return (stages - 1) * std::max(0.0, full - 3 * weight) / 2;
    case PipelineKind::v_half:
      return (stages - 1) * full / 3;
    case PipelineKind::v_min:
      return (stages - 1) * full * 2 / 3;
    case PipelineKind::dualpipe: {
      double pair = full, backward = mean.backward_input + weight;
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
  }
  mean.forward /= count, mean.backward_input /= count, mean.backward_weight /= count;
  return mean;
}

using Kind = PipelineAction::Kind;

// Forward k of a stage in an interleaved schedule: groups of `stages` micro-batches pass chunk after chunk.
PipelineAction interleaved(int64_t k, int64_t stages, int64_t chunks, bool forward) {
  int64_t group = k / (stages * chunks), inside = k % (stages * chunks);
  int64_t chunk = inside / stages;
  return {.kind = forward ? Kind::forward : Kind::backward,
          .chunk = forward ? chunk : chunks - 1 - chunk,
          .micro_batch = group * stages + inside % stages};
}

// Narayanan et al. 2021: warm-up forwards, then one forward and one backward in turn, then the rest.
std::vector<PipelineAction> one_f_one_b(int64_t stage, int64_t stages, int64_t chunks, int64_t micro_batches) {
  int64_t total = micro_batches * chunks;
  int64_t warm_up = chunks == 1 ? stages - 1 - stage : (stages - 1 - stage) * 2 + (chunks - 1) * stages;
  warm_up = std::min(warm_up, total);
  std::vector<PipelineAction> actions;
  for (int64_t k = 0; k < warm_up; ++k) actions.push_back(interleaved(k, stages, chunks, true));
  for (int64_t k = 0; k < total; ++k) {
    if (warm_up + k < total) actions.push_back(interleaved(warm_up + k, stages, chunks, true));
    actions.push_back(interleaved(k, stages, chunks, false));
  }
  return actions;
}

std::vector<PipelineAction> gpipe(int64_t micro_batches) {
  std::vector<PipelineAction> actions;
  for (int64_t m = 0; m < micro_batches; ++m) actions.push_back({.kind = Kind::forward, .micro_batch = m});
  for (int64_t m = 0; m < micro_batches; ++m) actions.push_back({.kind = Kind::backward, .micro_batch = m});
  return actions;
}

// Qi et al. 2023: 1F1B whose weight gradients wait, so that the drain is filled with them. ZB-H1 (ahead = 1)
// delays them by the stage's number; ZB-H2 (ahead = 2) by twice of it, and runs twice as far ahead.
std::vector<PipelineAction> zero_bubble(int64_t stage, int64_t stages, int64_t micro_batches, int64_t ahead) {
  std::vector<PipelineAction> actions;
  int64_t warm_up = std::min(ahead * (stages - 1 - stage), micro_batches), weight = 0;
  for (int64_t m = 0; m < warm_up; ++m) actions.push_back({.kind = Kind::forward, .micro_batch = m});
  for (int64_t m = 0; m < micro_batches; ++m) {
    if (warm_up + m < micro_batches) actions.push_back({.kind = Kind::forward, .micro_batch = warm_up + m});
    actions.push_back({.kind = Kind::backward_input, .micro_batch = m});
    bool draining = warm_up + m >= micro_batches;
    if (!draining && m >= ahead * stage)
      actions.push_back({.kind = Kind::backward_weight, .micro_batch = weight++});
    else if (draining && weight <= m)
      actions.push_back({.kind = Kind::backward_weight, .micro_batch = weight++});
  }
  while (weight < micro_batches) actions.push_back({.kind = Kind::backward_weight, .micro_batch = weight++});
  return actions;
}

double seconds_of(Kind kind, const PipelineStage& time) {
  switch (kind) {
    case Kind::forward:
      return time.forward;
    case Kind::backward:
      return time.backward_input + time.backward_weight;
    case Kind::backward_input:
      return time.backward_input;
    case Kind::backward_weight:
      return time.backward_weight;
  }
  return 0;
}

// When outputs of (stage, chunk, micro-batch) are ready; negative: not yet.
class ReadyTimes {
 public:
  ReadyTimes(int64_t stages, int64_t chunks, int64_t micro_batches)
      : stages_(stages), chunks_(chunks), micro_batches_(micro_batches) {
    size_t size = static_cast<size_t>(stages * chunks * micro_batches);
    forward_.assign(size, -1), backward_.assign(size, -1);
  }
  // Time at which the input of an action is there, negative: not known yet.
  double input(int64_t stage, const PipelineAction& action, double send_s) const {
    int64_t piece = action.chunk * stages_ + stage, last = chunks_ * stages_ - 1;
    if (action.kind == Kind::forward)
      return piece == 0 ? 0 : sent(forward_[index(piece - 1, action.micro_batch)], send_s);
    double own = forward_[index(piece, action.micro_batch)];
    if (action.kind == Kind::backward_weight) return backward_[index(piece, action.micro_batch)];
    if (piece == last || own < 0) return own;
    return sent(backward_[index(piece + 1, action.micro_batch)], send_s);
  }
  void finish(int64_t stage, const PipelineAction& action, double time) {
    size_t place = index(action.chunk * stages_ + stage, action.micro_batch);
    if (action.kind == Kind::forward) forward_[place] = time;
    if (action.kind == Kind::backward || action.kind == Kind::backward_input) backward_[place] = time;
  }

 private:
  size_t index(int64_t piece, int64_t micro_batch) const {
    return static_cast<size_t>(piece * micro_batches_ + micro_batch);
  }
  static double sent(double ready, double send_s) { return ready < 0 ? ready : ready + send_s; }
  int64_t stages_, chunks_, micro_batches_;
  std::vector<double> forward_, backward_;
};

}  // namespace

PipelineTime pipeline_closed_form(PipelineKind kind, int64_t virtual_stages, int64_t micro_batches,
                                  const std::vector<EqualStages>& stages, double send_s) {
  double slowest = 0, count = 0, chunks = real(virtual_stages);
  for (const auto& [time, times] : stages) slowest = std::max(slowest, time.total()), count += times;
  PipelineStage mean = mean_of(stages, count);
  // The others than the slowest, seen as count - 1 stages of their mean.
  if (count > 1) {
    double others = (count * mean.total() - slowest) / (count - 1);
    double scale = mean.total() > 0 ? others / mean.total() : 1;
    mean.forward *= scale, mean.backward_input *= scale, mean.backward_weight *= scale;
  }
  PipelineTime time;
  time.bubble = even_bubble(kind, count, chunks, mean);
  // Each chunk of each micro-batch is sent on and its gradient comes back; the first and the last wait for all
  // hops.
  double sends = count > 1 ? 2 * send_s * (real(micro_batches) * chunks + count - 2) : 0;
  time.seconds = real(micro_batches) * slowest + time.bubble + sends;
  return time;
}

PipelineTime pipeline_closed_form(PipelineKind kind, int64_t virtual_stages, int64_t micro_batches,
                                  const std::vector<PipelineStage>& stages, double send_s) {
  std::vector<EqualStages> each;
  for (const PipelineStage& stage : stages) each.push_back({stage, 1});
  return pipeline_closed_form(kind, virtual_stages, micro_batches, each, send_s);
}

PipelineTable pipeline_table(PipelineKind kind, int64_t stages, int64_t virtual_stages, int64_t micro_batches) {
  PipelineTable table;
  for (int64_t stage = 0; stage < stages; ++stage) {
    if (kind == PipelineKind::gpipe)
      table.push_back(gpipe(micro_batches));
    else if (kind == PipelineKind::zb_h1)
      table.push_back(zero_bubble(stage, stages, micro_batches, 1));
    else if (kind == PipelineKind::zb_h2)
      table.push_back(zero_bubble(stage, stages, micro_batches, 2));
    else
      table.push_back(one_f_one_b(stage, stages, virtual_stages, micro_batches));
  }
  return table;
}

bool has_pipeline_table(PipelineKind kind) {
  return kind == PipelineKind::gpipe || kind == PipelineKind::one_f_one_b || kind == PipelineKind::zb_h1 ||
         kind == PipelineKind::zb_h2;
}

std::vector<std::vector<PipelineSpan>> pipeline_spans(const PipelineTable& table, int64_t virtual_stages,
                                                      const std::vector<PipelineStage>& stages, double send_s) {
  auto count = static_cast<int64_t>(table.size());
  int64_t micro_batches = 0;
  size_t left = 0;
  for (const auto& actions : table) {
    left += actions.size();
    for (const PipelineAction& action : actions)
      micro_batches = std::max(micro_batches, action.micro_batch + 1);
  }
  ReadyTimes ready(count, virtual_stages, micro_batches);
  std::vector<std::vector<PipelineSpan>> spans(table.size());
  for (bool moved = true; moved && left > 0;) {
    moved = false;
    for (int64_t stage = 0; stage < count; ++stage) {
      auto s = static_cast<size_t>(stage);
      for (; spans[s].size() < table[s].size(); --left, moved = true) {
        const PipelineAction& action = table[s][spans[s].size()];
        double input = ready.input(stage, action, send_s);
        if (input < 0) break;
        double start = std::max(spans[s].empty() ? 0 : spans[s].back().end, input);
        spans[s].push_back({start, start + seconds_of(action.kind, stages[s]) / real(virtual_stages)});
        ready.finish(stage, action, spans[s].back().end);
      }
    }
  }
  if (left > 0) spans.clear();
  return spans;
}

double pipeline_recurrence(const PipelineTable& table, int64_t virtual_stages,
                           const std::vector<PipelineStage>& stages, double send_s) {
  auto spans = pipeline_spans(table, virtual_stages, stages, send_s);
  if (spans.empty()) return std::numeric_limits<double>::infinity();
  double longest = 0;
  for (const auto& stage : spans)
    if (!stage.empty()) longest = std::max(longest, stage.back().end - stage.front().start);
  return longest;
}

}  // namespace tessera::plan
