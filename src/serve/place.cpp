#include "serve/place.h"

#include <numeric>

namespace tessera::serve {

namespace {

int64_t neighbour(const Layout& layout, Coordinate at, int64_t stage) {
  if (stage < 0 || stage >= layout.pp) return -1;
  at.pp = stage;
  return rank_of(layout, at);
}

std::vector<int64_t> logits_ranks(const Layout& layout) {
  std::vector<int64_t> ranks;
  for (int64_t dp = 0; dp < layout.dp; ++dp)
    for (int64_t fsdp = 0; fsdp < layout.fsdp; ++fsdp)
      ranks.push_back(rank_of(layout, {.dp = dp, .fsdp = fsdp, .pp = layout.pp - 1}));
  return ranks;
}

}  // namespace

ServePlace place_of(const ModelSpec& spec, const Layout& layout, int64_t rank) {
  const Coordinate at = coordinate_of(layout, rank);
  const int64_t own_experts = spec.moe.experts / layout.ep, first = expert_place(layout, at) * own_experts;
  return {.rank = rank,
          .tp = layout.tp,
          .tp_rank = at.tp,
          .stage = at.pp,
          .stages = layout.pp,
          .replica = replica_of(layout, at),
          .replicas = layout.replicas(),
          .layers = stage_layers(spec, layout, at.pp),
          .first_expert = first,
          .last_expert = first + own_experts,
          .previous = neighbour(layout, at, at.pp - 1),
          .next = neighbour(layout, at, at.pp + 1),
          .logits_ranks = logits_ranks(layout)};
}

Status check_layout(const ModelSpec& spec, const Layout& layout) {
  auto refuse = [&](const std::string& why) { return invalid("layout '{}': {}", to_string(layout), why); };
  if (layout.cp > 1) return refuse("serving does not use cp; use tp, pp, dp or ep");
  if (layout.virtual_stages > 1) return refuse("serving has one run of layers on each stage");
  if (layout.pp > spec.layers)
    return refuse(fmt::format("{} stages, but the model has {} layers", layout.pp, spec.layers));
  if (layout.ep == 1) return {};
  if (spec.moe.experts == 0) return refuse("the model has no experts; use dp instead of ep");
  if (spec.moe.experts % layout.ep != 0)
    return refuse(fmt::format("ep={} does not divide {} experts", layout.ep, spec.moe.experts));
  if (layout.replicas() % layout.ep != 0)
    return refuse(fmt::format("ep={} does not divide {} replicas", layout.ep, layout.replicas()));
  return {};
}

Result<OwnedGroups> OwnedGroups::make(const Layout& layout, int64_t rank, const Join& join) {
  OwnedGroups groups;
  std::vector<int64_t> everyone(static_cast<size_t>(layout.processes()));
  std::iota(everyone.begin(), everyone.end(), 0);
  TESSERA_ASSIGN_OR_RETURN(groups.world_, join("world", everyone));
  groups.tp_is_world_ = layout.tp == layout.processes() && layout.tp > 1;
  if (layout.tp > 1 && !groups.tp_is_world_) {
    auto members = ranks_along(layout, rank, {Axis::tp});
    TESSERA_ASSIGN_OR_RETURN(groups.tp_, join(fmt::format("tp-{}", members[0]), members));
  }
  if (layout.ep > 1) {
    auto members = expert_ranks(layout, rank);
    TESSERA_ASSIGN_OR_RETURN(groups.experts_, join(fmt::format("experts-{}", members[0]), members));
  }
  return groups;
}

RankGroups OwnedGroups::view() const {
  return {.world = world_.get(), .tp = tp_is_world_ ? world_.get() : tp_.get(), .experts = experts_.get()};
}

void OwnedGroups::abort(const Error& error) {
  for (Group* group : {world_.get(), tp_.get(), experts_.get()})
    if (group) group->abort(error);
}

}  // namespace tessera::serve
