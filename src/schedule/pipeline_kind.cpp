#include "schedule/pipeline_kind.h"

namespace tessera {

bool is_v_shaped(PipelineKind kind) {
  return kind == PipelineKind::zb_v || kind == PipelineKind::v_half || kind == PipelineKind::v_min;
}

int64_t chunks_of(PipelineKind kind, int64_t virtual_stages) {
  return is_v_shaped(kind) || kind == PipelineKind::dualpipe ? 2 : virtual_stages;
}

int64_t pieces_of(PipelineKind kind, int64_t stages, int64_t chunks) {
  return kind == PipelineKind::dualpipe ? stages : stages * chunks;
}

int64_t piece_of(PipelineKind kind, int64_t stages, int64_t stage, int64_t chunk) {
  bool dualpipe = kind == PipelineKind::dualpipe;
  int64_t place = chunk % 2 == 1 && (dualpipe || is_v_shaped(kind)) ? stages - 1 - stage : stage;
  return dualpipe ? place : chunk * stages + place;
}

}  // namespace tessera
