// Memory of many layouts of one request. What a layer keeps depends on few fields of a layout, what a stage
// holds on others; each is computed once and found again, and a layout's memory is sums over the stages that
// differ. training_memory() takes the same path with nothing found yet, so both give the same figures.
//
// One object serves one model, work and set of options; only the layout changes. Threads: one object per
// thread.
#pragma once

#include <array>
#include <span>
#include <unordered_map>
#include <vector>

#include "plan/training/in_flight.h"
#include "plan/training/memory.h"
#include "plan/training/memory_constants.h"
#include "plan/training/states.h"
#include "plan/training/term_key.h"
#include "plan/training/workspace.h"

namespace tessera::plan {

// A kind of layer on one rank. Index 0: as its modules say; 1: recomputed in full.
struct KindMemory {
  std::array<double, 2> kept{};      // from forward to backward, of one micro-batch
  std::array<double, 2> backward{};  // temporaries of its backward, what it computes again included
  double deferred = 0;               // what its weight gradients need where they are put off
  StageElements elements;
};
struct ModelMemory {
  std::vector<KindMemory> kinds;
  EndElements ends;
  double head_bytes = 0;  // loss and backward of the head
  PlaceholderBytes placeholders;
  const MemoryConstants* constants = nullptr;
};

// How often each chunk of a stage holds each kind, as it is and recomputed in full: [chunk][kind][full].
struct StageLayers {
  std::vector<double> counts;
  std::vector<double> sums;  // over chunks: [kind][full]
  bool embedding = false, head = false;
  bool even = true;  // all chunks hold the same
  bool operator==(const StageLayers&) const = default;
};
struct StagesLayers {
  std::vector<StageLayers> different;
  std::vector<size_t> of_stage;  // stage -> index into `different`
  std::vector<int64_t> first;  // first stage of each: the one with most micro-batches in flight, unless `held`
  std::vector<std::vector<HeldSlots>> held;  // by stage, where memory follows the table (in_flight.h)
  std::span<const HeldSlots> held_by(int64_t stage) const {
    if (held.empty()) return {};
    return held[static_cast<size_t>(stage)];
  }
};

class MemoryTerms {
 public:
  // What training_memory() gives for its fullest stage. REQUIRES: validate(setup) holds.
  TrainingMemory fullest(const TrainingSetup& setup);
  TrainingMemory of_stage(const TrainingSetup& setup, int64_t stage);

  const ModelMemory& model(const TrainingSetup& setup);
  const StagesLayers& stages(const TrainingSetup& setup);

 private:
  std::unordered_map<TermKey, ModelMemory, TermHash> models_, without_activations_;
  std::unordered_map<TermKey, StagesLayers, TermHash> stages_;
};

// Elements of one rank of a stage that holds `layers`.
StageElements elements_of(const StageLayers& layers, const ModelMemory& model);
// Its activations of all micro-batches in flight, and what weight gradients that were put off need. `held`: the
// stage's moments where memory follows the table.
double kept_in_flight(const TrainingSetup& setup, int64_t stage, const StageLayers& layers,
                      const ModelMemory& model, std::span<const HeldSlots> held);
// Reserved, device and required from what is allocated.
void add_overheads(TrainingMemory& memory, const MemoryConstants& constants);
TrainingMemory stage_memory(const TrainingSetup& setup, int64_t stage, const StageLayers& layers,
                            const ModelMemory& model, std::span<const HeldSlots> held = {});

}  // namespace tessera::plan
