#include "plan/training/in_flight.h"

#include <algorithm>

namespace tessera::plan {
namespace {

// Forwards of chunks that come before the first backward of the stage.
int64_t interleaved_ahead(const TrainingSetup& setup, int64_t stage, int64_t chunks) {
  int64_t pp = setup.layout.pp;
  return std::min(setup.micro_batches() * chunks, 2 * (pp - stage - 1) + (chunks - 1) * pp + 1);
}

bool is_interleaved(const TrainingSetup& setup, int64_t chunks) {
  return setup.layout.schedule == PipelineKind::one_f_one_b && chunks > 1;
}

double per_chunk(PipelineKind kind, int64_t pp, int64_t micro_batches, int64_t stage) {
  auto stages = static_cast<double>(pp), behind = static_cast<double>(pp - stage);
  switch (kind) {
    case PipelineKind::gpipe:
      return static_cast<double>(micro_batches);
    case PipelineKind::v_half:
      return stages / 2 + 1;
    case PipelineKind::v_min:
      return (stages + 4) / 3;
    default:
      return behind;
  }
}

}  // namespace

bool is_held_by_table(PipelineKind kind) {
  return kind == PipelineKind::zb_h1 || kind == PipelineKind::zb_h2 || kind == PipelineKind::zb_v ||
         kind == PipelineKind::dualpipe;
}

int64_t table_micro_batches(const TrainingSetup& setup) {
  return std::min(setup.micro_batches(), 4 * setup.layout.pp);
}

std::vector<std::vector<HeldSlots>> moments_in_flight(const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  if (!is_held_by_table(l.schedule)) return {};
  Schedule schedule = make_schedule(l.schedule, l.pp, setup.chunks(), table_micro_batches(setup));
  std::vector<std::vector<HeldSlots>> moments;
  for (int64_t stage = 0; stage < l.pp; ++stage) moments.push_back(peaks_in_flight(schedule, stage));
  return moments;
}

double micro_batches_in_flight(const TrainingSetup& setup, int64_t stage, int64_t chunk) {
  const TrainingLayout& l = setup.layout;
  int64_t micro_batches = setup.micro_batches(), chunks = setup.chunks();
  if (!is_interleaved(setup, chunks))
    return std::min(static_cast<double>(micro_batches), per_chunk(l.schedule, l.pp, micro_batches, stage));
  // Forwards run in groups of pp micro-batches, chunk after chunk.
  int64_t ahead = interleaved_ahead(setup, stage, chunks), round = l.pp * chunks;
  int64_t rest = std::clamp<int64_t>(ahead % round - chunk * l.pp, 0, l.pp);
  return static_cast<double>(ahead / round * l.pp + rest);
}

double chunks_in_flight(const TrainingSetup& setup, int64_t stage) {
  int64_t chunks = setup.chunks();
  if (is_interleaved(setup, chunks)) return static_cast<double>(interleaved_ahead(setup, stage, chunks));
  return static_cast<double>(chunks) * micro_batches_in_flight(setup, stage, 0);
}

}  // namespace tessera::plan
