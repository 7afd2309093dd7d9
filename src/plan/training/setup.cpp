#include "plan/training/setup.h"

#include <algorithm>
#include <numeric>

#include "schedule/schedule.h"

namespace tessera::plan {
namespace {

// Even split of `layers`; what is missing is taken from the last piece, the first, the last but one, ...
std::vector<int64_t> even_pieces(int64_t layers, int64_t pieces) {
  std::vector<int64_t> sizes(static_cast<size_t>(pieces), (layers + pieces - 1) / pieces);
  int64_t missing = sizes[0] * pieces - layers;
  for (int64_t i = 0; i < missing; ++i) {
    int64_t place = i % 2 == 0 ? pieces - 1 - i / 2 : i / 2;
    --sizes[static_cast<size_t>(place)];
  }
  return sizes;
}

Status divides(const char* name, int64_t divisor, const char* what, int64_t dividend) {
  if (divisor > 0 && dividend % divisor == 0) return {};
  return invalid("layout: {}={} does not divide {} = {}", name, divisor, what, dividend);
}

Status validate_degrees(const TrainingLayout& l) {
  const std::pair<const char*, int64_t> degrees[] = {{"dp", l.dp},
                                                     {"fsdp", l.fsdp},
                                                     {"tp", l.tp},
                                                     {"pp", l.pp},
                                                     {"cp", l.cp},
                                                     {"ep", l.ep},
                                                     {"virtual_stages", l.virtual_stages},
                                                     {"micro_batch", l.micro_batch}};
  for (const auto& [name, degree] : degrees)
    if (degree < 1 || degree > (1 << 24))
      return invalid("layout: {}={}: expected a positive integer", name, degree);
  if (l.etp < 0) return invalid("layout: etp={}: expected a positive integer, or 0 for tp", l.etp);
  return {};
}

Status validate_experts(const Blueprint& model, const TrainingLayout& l) {
  if (l.ep > 1 && !model.is_moe()) return invalid("layout: ep={} but {} has no experts", l.ep, model.name);
  if (!model.is_moe()) return {};
  for (const Layer& layer : model.kinds)
    if (layer.ffn.kind == FfnKind::moe) {
      TESSERA_RETURN_IF_ERROR(divides("ep", l.ep, "experts", layer.ffn.experts));
      TESSERA_RETURN_IF_ERROR(divides("etp", l.expert_tp(), "expert width", layer.ffn.expert_width));
    }
  return divides("ep*etp", l.ep * l.expert_tp(), "dp*fsdp*cp*tp", l.replicas() * l.cp * l.tp);
}

Status validate_pipeline(const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  int64_t layers = setup.model.layers(), pieces = pieces_of(l.schedule, l.pp, setup.chunks());
  if (!l.stage_layers.empty()) {
    int64_t sum = std::accumulate(l.stage_layers.begin(), l.stage_layers.end(), int64_t{0});
    if (static_cast<int64_t>(l.stage_layers.size()) != pieces || sum != layers)
      return invalid("layout: stage_layers has {} pieces of {} layers together; expected {} of {}",
                     l.stage_layers.size(), sum, pieces, layers);
  }
  // Interleaved, embedding and head may have a piece each to themselves: Megatron counts them as layers.
  if (pieces > layers + (l.virtual_stages > 1 ? 2 : 0))
    return invalid("layout: pp={} with {} chunks needs as many layers; {} has {}", l.pp, setup.chunks(),
                   setup.model.name, layers);
  if (l.virtual_stages > 1 && l.pp == 1)
    return invalid("layout: virtual_stages={} needs pp > 1", l.virtual_stages);
  return check_table(l.schedule, l.pp, setup.chunks(), setup.micro_batches());
}

Status validate_heads(const Blueprint& model, const TrainingLayout& l) {
  for (const Layer& layer : model.kinds) {
    if (layer.mixer.kind == MixerKind::none) continue;
    TESSERA_RETURN_IF_ERROR(divides("tp", l.tp, "heads", layer.mixer.heads));
    int64_t kv = layer.mixer.kv_heads;
    if (kv > 0 && kv % l.tp != 0 && l.tp % kv != 0)
      return invalid("layout: tp={} neither divides nor is a multiple of {} KV heads", l.tp, kv);
  }
  return {};
}

}  // namespace

int64_t TrainingLayout::optimizer_shards() const {
  switch (sharding) {
    case Sharding::none:
      return 1;
    case Sharding::optimizer:
      return dp * fsdp * cp;
    default:
      return fsdp * (shard_over_cp ? cp : 1);
  }
}

// ZeRO-1 shares an expert's optimizer among all ranks that hold it; FSDP keeps to its own group.
int64_t TrainingLayout::expert_optimizer_shards() const {
  if (sharding == Sharding::none) return 1;
  if (sharding == Sharding::optimizer) return std::max<int64_t>(1, expert_replicas());
  return std::max<int64_t>(1, optimizer_shards() * tp / (ep * expert_tp()));
}

int64_t TrainingSetup::chunks() const {
  return chunks_of(layout.schedule, layout.virtual_stages);
}

int64_t TrainingSetup::piece_of(int64_t stage, int64_t chunk) const {
  return tessera::piece_of(layout.schedule, layout.pp, stage, chunk);
}

std::vector<LayerRange> TrainingSetup::pieces() const {
  int64_t count = pieces_of(layout.schedule, layout.pp, chunks()), first = 0;
  std::vector<LayerRange> ranges;
  ranges.reserve(static_cast<size_t>(count));
  for (int64_t size : layout.stage_layers.empty() ? even_pieces(model.layers(), count) : layout.stage_layers) {
    ranges.push_back({first, first + size});
    first += size;
  }
  return ranges;
}

LayerRange TrainingSetup::layers_of(int64_t stage, int64_t chunk) const {
  return pieces()[static_cast<size_t>(piece_of(stage, chunk))];
}

Status validate(const TrainingSetup& setup) {
  const TrainingLayout& l = setup.layout;
  if (setup.work.seq < 1 || setup.work.global_batch < 1)
    return invalid("work: seq={}, global_batch={}: expected positive integers", setup.work.seq,
                   setup.work.global_batch);
  TESSERA_RETURN_IF_ERROR(validate_degrees(l));
  TESSERA_RETURN_IF_ERROR(divides("dp*fsdp*micro_batch", l.replicas() * l.micro_batch, "sequences of a step",
                                  setup.work.global_batch));
  TESSERA_RETURN_IF_ERROR(divides("cp", l.cp, "sequence length", setup.work.seq));
  // XLA splits the hidden size instead.
  if (l.sequence_parallel && setup.options.framework == Framework::jax)
    TESSERA_RETURN_IF_ERROR(divides("tp", l.tp, "hidden size", setup.model.hidden));
  else if (l.sequence_parallel)
    TESSERA_RETURN_IF_ERROR(divides("tp*cp", l.tp * l.cp, "sequence length", setup.work.seq));
  TESSERA_RETURN_IF_ERROR(validate_heads(setup.model, l));
  TESSERA_RETURN_IF_ERROR(validate_experts(setup.model, l));
  return validate_pipeline(setup);
}

}  // namespace tessera::plan
