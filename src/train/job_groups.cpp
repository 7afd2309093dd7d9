#include "train/job_groups.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace tessera::train {
namespace {

// Members of the shards among ranks that hold the same weights: consecutive runs of `shards` (fsdp), or every
// `shards`-th (dp).
std::vector<int64_t> fsdp_members(const std::vector<int64_t>& replicas, int64_t shards, int64_t place) {
  auto first = replicas.begin() + place / shards * shards;
  return {first, first + shards};
}
std::vector<int64_t> dp_members(const std::vector<int64_t>& replicas, int64_t shards, int64_t place) {
  std::vector<int64_t> members;
  for (auto i = static_cast<size_t>(place % shards); i < replicas.size(); i += static_cast<size_t>(shards))
    members.push_back(replicas[i]);
  return members;
}

}  // namespace

Status make_groups(model::Context& context, const TrainerOptions& options, std::unique_ptr<Group>& tied) {
  const Layout& layout = context.layout;
  int64_t rank = context.rank;
  auto make = [&](std::unique_ptr<Group>& group, const std::string& name,
                  const std::vector<int64_t>& members) -> Status {
    if (members.size() == 1) {
      group = make_single_group();
      return {};
    }
    TESSERA_ASSIGN_OR_RETURN(group,
                             options.make_group(fmt::format("{}-{}", name, fmt::join(members, ".")), members));
    return {};
  };
  std::vector<int64_t> world = ranks_along(layout, 0, {Axis::tp, Axis::cp, Axis::fsdp, Axis::dp, Axis::pp});
  std::sort(world.begin(), world.end());
  auto replicas = replica_ranks(layout, rank), experts = expert_replica_ranks(layout, rank);
  int64_t replica = replica_of(layout, context.at),
          expert_shards = std::max<int64_t>(1, layout.fsdp / layout.ep);
  model::Groups& groups = context.groups;
  TESSERA_RETURN_IF_ERROR(make(groups.world, "world", world));
  TESSERA_RETURN_IF_ERROR(make(groups.tp, "tp", ranks_along(layout, rank, {Axis::tp})));
  TESSERA_RETURN_IF_ERROR(make(groups.pp, "pp", ranks_along(layout, rank, {Axis::pp})));
  TESSERA_RETURN_IF_ERROR(make(groups.ep, "ep", expert_ranks(layout, rank)));
  TESSERA_RETURN_IF_ERROR(make(groups.replicas, "replicas", replicas));
  TESSERA_RETURN_IF_ERROR(make(groups.fsdp, "fsdp", fsdp_members(replicas, layout.fsdp, replica)));
  TESSERA_RETURN_IF_ERROR(make(groups.dp, "dp", dp_members(replicas, layout.fsdp, replica)));
  int64_t place = replica / layout.ep;
  TESSERA_RETURN_IF_ERROR(make(groups.expert_replicas, "expert-replicas", experts));
  TESSERA_RETURN_IF_ERROR(make(groups.expert_fsdp, "expert-fsdp", fsdp_members(experts, expert_shards, place)));
  TESSERA_RETURN_IF_ERROR(make(groups.expert_dp, "expert-dp", dp_members(experts, expert_shards, place)));
  bool at_an_end = context.first_stage() || context.last_stage();
  if (!context.spec.tied || layout.pp == 1 || !at_an_end) return {};
  auto stages = ranks_along(layout, rank, {Axis::pp});
  return make(tied, "tied", {stages.front(), stages.back()});
}

std::vector<Group*> all_groups(model::Context& context, Group* tied) {
  model::Groups& g = context.groups;
  std::vector<Group*> groups = {g.world.get(),       g.tp.get(),       g.pp.get(), g.ep.get(),
                                g.replicas.get(),    g.fsdp.get(),     g.dp.get(), g.expert_replicas.get(),
                                g.expert_fsdp.get(), g.expert_dp.get()};
  if (tied) groups.push_back(tied);
  return groups;
}

}  // namespace tessera::train
