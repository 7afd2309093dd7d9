#include "plan/training/memory.h"

#include <algorithm>

#include "plan/training/in_flight.h"
#include "plan/training/memory_terms.h"
#include "plan/training/saved_tensors.h"

namespace tessera::plan {
namespace {

// What FSDP holds beyond its shards: the unit in use and the one that is prefetched, in the precision of the
// products, and one unit's gradients until they are scattered. Kept gathered (pipelines): everything, gradients
// too.
double gathered_bytes(const TrainingSetup& setup, const StageElements& elements) {
  const TrainingLayout& l = setup.layout;
  if (l.sharding < Sharding::gradients) return 0;
  double element = element_bytes(setup), unit = elements.largest_layer;
  double gradients = element * unit;
  if (l.sharding == Sharding::gradients) return gradients;
  // DeepSpeed gathers module by module, up to stage3_max_live_parameters (1e9 by default).
  if (setup.options.framework == Framework::deepspeed) return element * (std::min(unit, 1e9) + 5e8);
  if (l.keep_gathered) return (element + 4) * elements.total();
  return 2 * element * unit + gradients;
}

// The layer whose backward needs most: its temporaries and what it computes again.
double largest_layer_backward(const StageLayers& layers, const ModelMemory& model) {
  double most = 0;
  for (size_t place = 0; place < layers.sums.size(); ++place)
    if (layers.sums[place] > 0) most = std::max(most, model.kinds[place / 2].backward[place % 2]);
  return most;
}

// Of one chunk for one micro-batch; `counts`: [kind][full].
double kept_bytes(const double* counts, const ModelMemory& model) {
  double bytes = 0;
  for (size_t kind = 0; kind < model.kinds.size(); ++kind)
    bytes += counts[2 * kind] * model.kinds[kind].kept[0] + counts[2 * kind + 1] * model.kinds[kind].kept[1];
  return bytes;
}

double deferred_bytes(const double* counts, const ModelMemory& model) {
  double bytes = 0;
  for (size_t kind = 0; kind < model.kinds.size(); ++kind)
    bytes += (counts[2 * kind] + counts[2 * kind + 1]) * model.kinds[kind].deferred;
  return bytes;
}

// At the moment that holds most.
double held_bytes(std::span<const HeldSlots> held, const StageLayers& layers, const ModelMemory& model) {
  double most = 0;
  for (const HeldSlots& moment : held) {
    double bytes = 0;
    for (size_t chunk = 0; chunk < moment.kept.size(); ++chunk) {
      const double* counts = layers.counts.data() + chunk * 2 * model.kinds.size();
      bytes += static_cast<double>(moment.kept[chunk]) * kept_bytes(counts, model);
      if (moment.deferred[chunk] > 0)
        bytes += static_cast<double>(moment.deferred[chunk]) * deferred_bytes(counts, model);
    }
    most = std::max(most, bytes);
  }
  return most;
}

}  // namespace

StageElements elements_of(const StageLayers& layers, const ModelMemory& model) {
  StageElements sum;
  for (size_t kind = 0; kind < model.kinds.size(); ++kind) {
    double count = layers.sums[2 * kind] + layers.sums[2 * kind + 1];
    if (count > 0) sum.add(model.kinds[kind].elements, count);
  }
  sum.dense += model.ends.of(layers.embedding, layers.head);
  return sum;
}

double kept_in_flight(const TrainingSetup& setup, int64_t stage, const StageLayers& layers,
                      const ModelMemory& model, std::span<const HeldSlots> held) {
  if (!held.empty()) return held_bytes(held, layers, model);
  if (layers.even) return chunks_in_flight(setup, stage) * kept_bytes(layers.counts.data(), model);
  double bytes = 0;
  for (int64_t chunk = 0; chunk < setup.chunks(); ++chunk) {
    const double* counts = layers.counts.data() + static_cast<size_t>(chunk) * 2 * model.kinds.size();
    bytes += micro_batches_in_flight(setup, stage, chunk) * kept_bytes(counts, model);
  }
  return bytes;
}

void add_overheads(TrainingMemory& memory, const MemoryConstants& constants) {
  memory.reserved = memory.allocated() * (1 + constants.fragmentation);
  memory.device = memory.reserved + constants.context_bytes;
  memory.required = memory.allocated() * (1 + constants.least_fragmentation) + constants.least_context_bytes;
}

TrainingMemory stage_memory(const TrainingSetup& setup, int64_t stage, const StageLayers& layers,
                            const ModelMemory& model, std::span<const HeldSlots> held) {
  const MemoryConstants& constants = *model.constants;
  StageElements elements = elements_of(layers, model);
  StateBytes states = state_bytes(setup, elements);
  TrainingMemory memory;
  memory.parameters = states.parameters, memory.gradients = states.gradients,
  memory.optimizer = states.optimizer;
  memory.activations = kept_in_flight(setup, stage, layers, model, held);
  memory.gathered = gathered_bytes(setup, elements);
  // Logits exist only while the last micro-batch's loss is computed: before any backward frees a layer.
  memory.workspace = largest_layer_backward(layers, model);
  if (layers.head) memory.workspace = std::max(memory.workspace, model.head_bytes);
  memory.buffers =
      model.placeholders.layers + (layers.head ? model.placeholders.head : 0) + constants.bucket_bytes;
  add_overheads(memory, constants);
  return memory;
}

double activation_bytes(const TrainingSetup& setup, int64_t stage) {
  MemoryTerms terms;
  return terms.of_stage(setup, stage).activations;
}

double reported_bytes(const TrainingSetup& setup, const TrainingMemory& memory) {
  switch (setup.options.framework) {
    case Framework::megatron:
    case Framework::fsdp1:
      return memory.allocated();
    case Framework::fsdp2:
      return memory.reserved;
    default:
      return memory.device;
  }
}

std::vector<TrainingMemory> training_memory(const TrainingSetup& setup) {
  std::vector<TrainingMemory> stages;
  MemoryTerms terms;
  for (int64_t stage = 0; stage < setup.layout.pp; ++stage) stages.push_back(terms.of_stage(setup, stage));
  return stages;
}

const TrainingMemory& fullest(const std::vector<TrainingMemory>& stages) {
  return *std::max_element(stages.begin(), stages.end(),
                           [](const auto& a, const auto& b) { return a.required < b.required; });
}

Status check_fits(const TrainingSetup& setup, double device_bytes) {
  auto stages = training_memory(setup);
  const TrainingMemory& most = fullest(stages);
  if (most.required <= device_bytes) return {};
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  return make_error(ErrorCode::resource_exhausted,
                    "stage {} of {} needs {:.1f} GiB of device memory, {:.1f} are there; states take {:.1f}, "
                    "activations {:.1f}; try more tp, pp or sharding, or recomputation",
                    &most - stages.data(), stages.size(), most.required / kGiB, device_bytes / kGiB,
                    (most.parameters + most.gradients + most.optimizer) / kGiB, most.activations / kGiB);
}

Result<Recomputation> least_recomputation(const TrainingSetup& setup, double device_bytes) {
  // Flash attention keeps next to nothing of a core that would be worth computing again.
  const std::string core = setup.options.flash_attention ? "" : "core_attn+";
  std::vector<std::string> modes = {to_string(setup.layout.recompute)};
  if (!core.empty()) modes.emplace_back("core_attn");
  for (const char* modules :
       {"moe_act", "layernorm+moe_act", "layernorm+moe_act+mla_up_proj", "layernorm+moe_act+mla_up_proj+mlp"})
    modes.push_back(core + modules);
  LayerRange first = setup.layers_of(0, 0);
  for (int64_t layers = 1; layers < first.last - first.first; ++layers)
    modes.push_back(fmt::format("full:first={}", layers));
  modes.emplace_back("full");
  TrainingSetup changed = setup;
  for (const std::string& mode : modes) {
    TESSERA_ASSIGN_OR_RETURN(changed.layout.recompute, parse_recomputation(mode));
    if (check_fits(changed, device_bytes).ok()) return changed.layout.recompute;
  }
  return check_fits(changed, device_bytes).error();
}

}  // namespace tessera::plan
