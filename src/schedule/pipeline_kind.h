// Pipeline schedules by name, and where each places the model. Pieces are runs of layers in the model's order;
// a stage holds `chunks` of them. Threads: values.
#pragma once

#include <cstdint>

namespace tessera {

enum class PipelineKind {
  gpipe,        // all forwards, then all backwards: Huang et al. 2019
  one_f_one_b,  // Narayanan et al. 2021; interleaved with more than one chunk on a stage
  zb_h1,        // Qi et al. 2023: weight gradients fill the drain; memory of 1F1B
  zb_h2,        // the same, running twice as far ahead
  zb_v,         // two chunks placed as a V; memory of 1F1B on every stage
  v_half,       // Qi et al. 2024: half of that memory
  v_min,        // a third of it
  dualpipe      // DeepSeek-V3 report 3.2.1: two copies of the model, micro-batches from both ends
};

// Odd chunks of a stage run through the stages backwards.
bool is_v_shaped(PipelineKind kind);
// Chunks of the model on a stage: virtual stages; 2 for V-shaped schedules and for DualPipe.
int64_t chunks_of(PipelineKind kind, int64_t virtual_stages);
// Pieces that the model is cut into. DualPipe holds each twice.
int64_t pieces_of(PipelineKind kind, int64_t stages, int64_t chunks);
// Chunk c of stage s is piece c * stages + s; in V-shaped schedules odd chunks hold c * stages +
// (stages - 1 - s); DualPipe holds pieces s and stages - 1 - s.
int64_t piece_of(PipelineKind kind, int64_t stages, int64_t stage, int64_t chunk);

}  // namespace tessera
