#include "plan/training/memory.h"

#include <algorithm>
#include <array>
#include <optional>

#include "plan/training/in_flight.h"
#include "plan/training/memory_constants.h"
#include "plan/training/saved_tensors.h"
#include "plan/training/states.h"
#include "plan/training/workspace.h"

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

// A kind of layer as it is when kept and as it is when recomputed in full: priced once for all stages.
class LayerBytes {
 public:
  explicit LayerBytes(const TrainingSetup& setup) : setup_(setup), kinds_(setup.model.kinds.size()) {}
  struct Bytes {
    LayerActivations activations;
    double backward = 0;  // temporaries of its backward
  };
  const Bytes& of(int64_t layer, int64_t index_in_chunk) {
    auto kind = static_cast<size_t>(setup_.model.order[static_cast<size_t>(layer)]);
    bool full = recomputed_in_full(setup_.layout.recompute, index_in_chunk);
    auto& entry = kinds_[kind][full];
    if (!entry) {
      const Layer& one = setup_.model.kinds[kind];
      entry = Bytes{layer_activations(setup_, one, index_in_chunk), layer_backward_bytes(setup_, one)};
    }
    return *entry;
  }

 private:
  const TrainingSetup& setup_;
  std::vector<std::array<std::optional<Bytes>, 2>> kinds_;
};

// The layer whose backward needs most: its temporaries and what it computes again.
double largest_layer_backward(const TrainingSetup& setup, int64_t stage, LayerBytes& layers) {
  double most = 0;
  for (int64_t chunk = 0; chunk < setup.chunks(); ++chunk) {
    LayerRange range = setup.layers_of(stage, chunk);
    for (int64_t index = range.first; index < range.last; ++index) {
      const auto& bytes = layers.of(index, index - range.first);
      most = std::max(most, bytes.activations.recomputed + bytes.backward);
    }
  }
  return most;
}

double activation_bytes(const TrainingSetup& setup, int64_t stage, LayerBytes& layers) {
  std::vector<double> alive = micro_batches_in_flight(setup, stage);
  double bytes = 0;
  for (size_t chunk = 0; chunk < alive.size(); ++chunk) {
    LayerRange range = setup.layers_of(stage, static_cast<int64_t>(chunk));
    for (int64_t index = range.first; index < range.last; ++index)
      bytes += alive[chunk] * layers.of(index, index - range.first).activations.kept;
  }
  return bytes;
}

// Logits exist only while the last micro-batch's loss is computed: before any backward frees a layer.
double workspace_bytes(const TrainingSetup& setup, int64_t stage, LayerBytes& layers) {
  double layer = largest_layer_backward(setup, stage, layers);
  return has_head(setup, stage) ? std::max(layer, head_bytes(setup)) : layer;
}

TrainingMemory stage_memory_of(const TrainingSetup& setup, int64_t stage, LayerBytes& layers) {
  const MemoryConstants& constants = memory_constants(setup.options.framework);
  StageElements elements = stage_elements(setup, stage);
  StateBytes states = state_bytes(setup, elements);
  TrainingMemory memory;
  memory.parameters = states.parameters, memory.gradients = states.gradients,
  memory.optimizer = states.optimizer;
  memory.activations = activation_bytes(setup, stage, layers);
  memory.gathered = gathered_bytes(setup, elements);
  memory.workspace = workspace_bytes(setup, stage, layers);
  memory.buffers = placeholder_bytes(setup, stage) + constants.bucket_bytes;
  memory.reserved = memory.allocated() * (1 + constants.fragmentation);
  memory.device = memory.reserved + constants.context_bytes;
  memory.required = memory.allocated() * (1 + constants.least_fragmentation) + constants.least_context_bytes;
  return memory;
}

}  // namespace

double activation_bytes(const TrainingSetup& setup, int64_t stage) {
  LayerBytes layers(setup);
  return activation_bytes(setup, stage, layers);
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
  LayerBytes layers(setup);
  for (int64_t stage = 0; stage < setup.layout.pp; ++stage)
    stages.push_back(stage_memory_of(setup, stage, layers));
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
  std::vector<std::string> modes = {to_string(setup.layout.recompute), "core_attn",
                                    "core_attn+layernorm+moe_act",
                                    "core_attn+layernorm+moe_act+mla_up_proj+mlp"};
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
