#include "plan/training/page_timeline.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "plan/page/page.h"

namespace tessera::plan {
namespace {

constexpr int64_t kMostBoxes = 9000;  // a browser draws them in a moment

// Whole rounds of `stages` micro-batches, at least two where the step has them: warm-up, steady state and drain
// are then seen.
int64_t drawn_micro_batches(int64_t stages, int64_t chunks, int64_t micro_batches) {
  int64_t rounds = std::max<int64_t>(2, kMostBoxes / (2 * stages * chunks) / stages);
  return std::min(micro_batches, rounds * stages);
}

}  // namespace

std::optional<PipelineTimeline> pipeline_timeline(const GpuPrediction& prediction) {
  const TrainingLayout& layout = prediction.setup.layout;
  if (prediction.step.pieces.empty()) return std::nullopt;
  PipelineTimeline out;
  out.chunks = prediction.setup.chunks();
  out.micro_batches = drawn_micro_batches(layout.pp, out.chunks, prediction.setup.micro_batches());
  out.schedule = make_schedule(layout.schedule, layout.pp, out.chunks, out.micro_batches);
  out.spans = spans(out.schedule, prediction.step.pieces, prediction.step.send_s);
  return out;
}

nlohmann::json timeline_json(const PipelineTimeline& timeline) {
  nlohmann::json stages = nlohmann::json::array();
  double end = 0;
  for (size_t stage = 0; stage < timeline.spans.size(); ++stage) {
    nlohmann::json boxes = nlohmann::json::array();
    for (size_t i = 0; i < timeline.spans[stage].size(); ++i) {
      const Action& action = timeline.schedule.table[stage][i];
      const ActionSpan& span = timeline.spans[stage][i];
      end = std::max(end, span.end);
      boxes.push_back({static_cast<int>(action.kind), action.chunk, action.slot, page_number(span.start),
                       page_number(span.end), action.paired ? 1 : 0});
    }
    stages.push_back(std::move(boxes));
  }
  return {{"chunks", timeline.chunks}, {"end", page_number(end)}, {"stages", std::move(stages)}};
}

}  // namespace tessera::plan
