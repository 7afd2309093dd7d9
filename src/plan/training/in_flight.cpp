#include "plan/training/in_flight.h"

#include <algorithm>

namespace tessera::plan {
namespace {

// Forwards run in groups of pp micro-batches, chunk after chunk.
std::vector<double> interleaved(int64_t pp, int64_t chunks, int64_t micro_batches, int64_t stage) {
  std::vector<double> alive(static_cast<size_t>(chunks), 0);
  int64_t ahead = std::min(micro_batches * chunks, 2 * (pp - stage - 1) + (chunks - 1) * pp + 1);
  for (int64_t forward = 0; forward < ahead; ++forward)
    alive[static_cast<size_t>(forward % (pp * chunks) / pp)] += 1;
  return alive;
}

double per_chunk(PipelineKind kind, int64_t pp, int64_t micro_batches, int64_t stage) {
  auto stages = static_cast<double>(pp), behind = static_cast<double>(pp - stage);
  switch (kind) {
    case PipelineKind::gpipe:
      return static_cast<double>(micro_batches);
    case PipelineKind::one_f_one_b:
    case PipelineKind::zb_h1:
      return behind;
    case PipelineKind::zb_h2:
      return 2 * behind - 1;
    case PipelineKind::zb_v:
      return stages;
    case PipelineKind::v_half:
      return stages / 2 + 1;
    case PipelineKind::v_min:
      return (stages + 4) / 3;
    case PipelineKind::dualpipe:
      return (stages + 1) / 2;
  }
  return stages;
}

}  // namespace

std::vector<double> micro_batches_in_flight(const TrainingSetup& setup, int64_t stage) {
  const TrainingLayout& l = setup.layout;
  int64_t micro_batches = setup.micro_batches(), chunks = setup.chunks();
  if (l.schedule == PipelineKind::one_f_one_b && chunks > 1)
    return interleaved(l.pp, chunks, micro_batches, stage);
  double most = static_cast<double>(micro_batches);
  return std::vector<double>(static_cast<size_t>(chunks),
                             std::min(most, per_chunk(l.schedule, l.pp, micro_batches, stage)));
}

}  // namespace tessera::plan
