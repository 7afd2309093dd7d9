#include "plan/training/term_key.h"

#include <bit>

namespace tessera::plan {

size_t TermHash::operator()(const TermKey& key) const {
  // A sum of products: they do not wait for each other.
  uint64_t hash = 0, factor = 0x9e3779b97f4a7c15ull;
  for (int64_t field : key.fields)
    hash += static_cast<uint64_t>(field) * factor, factor += 0x3c6ef372fe94f82aull;
  hash ^= hash >> 32;
  for (int64_t layers : key.stage_layers) mix(hash, static_cast<uint64_t>(layers));
  return hash;
}

TermKey layers_key(const TrainingLayout& layout, double recomputed) {
  const Recomputation& r = layout.recompute;
  int64_t modules = 0;
  for (bool module :
       {r.core_attention, r.norm, r.mla_up, r.mlp, r.moe, r.moe_act, r.shared_experts, r.cheap_ops})
    modules = 2 * modules + (module ? 1 : 0);
  int64_t rows = 2 * layout.micro_batch + (layout.sequence_parallel ? 1 : 0);
  return {{layout.tp, layout.cp, layout.ep, layout.expert_tp(), rows, static_cast<int64_t>(r.full),
           r.uniform_chunk, modules, std::bit_cast<int64_t>(recomputed)},
          {}};
}

TermKey kept_layers_key(const TrainingLayout& layout) {
  int64_t rows = 2 * layout.micro_batch + (layout.sequence_parallel ? 1 : 0);
  return {{layout.tp, layout.cp, layout.ep, layout.expert_tp(), rows}, {}};
}

}  // namespace tessera::plan
