#include "plan/training/calculon_space.h"

#include <algorithm>

namespace tessera::plan {
namespace {

std::vector<int64_t> divisors_of(int64_t number) {
  std::vector<int64_t> all;
  for (int64_t one = 1; one <= number; ++one)
    if (number % one == 0) all.push_back(one);
  return all;
}

int64_t heads_of(const Blueprint& model) {
  return model.kinds.front().mixer.heads;
}

std::vector<int64_t> depths(const GpuPlanRequest& request, int64_t tp) {
  std::vector<int64_t> all;
  int64_t layers = request.model.layers(), left = request.gpus / tp;
  for (int64_t pp : divisors_of(std::min(left, layers)))
    if (left % pp == 0 && layers % pp == 0) all.push_back(pp);
  return all;
}

std::vector<bool> values(bool free) {
  return free ? std::vector<bool>{false, true} : std::vector<bool>{false};
}

}  // namespace

int64_t calculon_batch(const GpuPlanRequest& request, int64_t dp) {
  return std::max(dp, request.work.global_batch / dp * dp);
}

std::vector<CalculonGroup> calculon_groups(const GpuPlanRequest& request) {
  std::vector<CalculonGroup> groups;
  int64_t hidden = request.model.hidden, heads = heads_of(request.model);
  for (int64_t tp : divisors_of(request.gpus)) {
    if (hidden % tp != 0 || heads % tp != 0) continue;
    std::vector<int64_t> micro_batches;
    for (int64_t pp : depths(request, tp)) {
      int64_t dp = request.gpus / tp / pp;
      for (int64_t one : divisors_of(calculon_batch(request, dp) / dp))
        if (one * request.work.seq % tp == 0) micro_batches.push_back(one);
    }
    std::sort(micro_batches.begin(), micro_batches.end());
    micro_batches.erase(std::unique(micro_batches.begin(), micro_batches.end()), micro_batches.end());
    for (int64_t micro_batch : micro_batches)
      for (int recompute : {0, 1, 2})
        for (bool sequence_parallel : {false, true}) {
          TrainingLayout& layers = groups.emplace_back().layers;
          layers.tp = tp, layers.micro_batch = micro_batch, layers.sequence_parallel = sequence_parallel;
          layers.recompute.core_attention = recompute == 1;
          if (recompute == 2) layers.recompute.full = Recomputation::Full::all;
        }
  }
  return groups;
}

std::vector<TrainingLayout> calculon_layouts(const GpuPlanRequest& request, const CalculonGroup& group) {
  std::vector<TrainingLayout> layouts;
  TrainingLayout layout = group.layers;
  for (int64_t pp : depths(request, layout.tp)) {
    layout.pp = pp, layout.dp = request.gpus / layout.tp / pp;
    if (calculon_batch(request, layout.dp) / layout.dp % layout.micro_batch != 0) continue;
    for (int64_t chunks : pp == 1 ? std::vector<int64_t>{1} : divisors_of(request.model.layers() / pp))
      for (bool sharded : values(layout.dp > 1)) {
        layout.virtual_stages = chunks;
        layout.sharding = sharded ? Sharding::optimizer : Sharding::none;
        layouts.push_back(layout);
      }
  }
  return layouts;
}

std::vector<CalculonSwitches> calculon_switches(const TrainingLayout& layout, bool undominated) {
  std::vector<CalculonSwitches> all;
  bool full = layout.recompute.full == Recomputation::Full::all, sp = layout.sequence_parallel;
  CalculonSwitches one;
  auto each_network = [&] {
    for (bool tp : values(layout.tp > 1))
      for (bool pp : values(layout.pp > 1))
        for (bool dp : values(layout.dp > 1)) {
          one.tp_outer = tp, one.pp_outer = pp, one.dp_outer = dp;
          all.push_back(one);
        }
  };
  auto each_offload = [&] {
    for (bool weights : values(true))
      for (bool activations : values(!full))
        for (bool optimizer : values(true)) {
          one.offload_weights = weights, one.offload_activations = activations;
          one.offload_optimizer = optimizer;
          each_network();
        }
  };
  if (undominated) {
    one.tp_overlap = layout.tp > 1 ? TpOverlap::ring : TpOverlap::none;
    one.overlap_dp = layout.dp > 1;
    each_offload();
    return all;
  }
  std::vector<TpOverlap> overlaps = {TpOverlap::none};
  if (layout.tp > 1) overlaps = {TpOverlap::none, TpOverlap::ring, TpOverlap::pipe};
  for (bool whole : values(!sp))
    for (bool keep : values(sp && !full))
      for (bool overlap : values(layout.dp > 1))
        for (TpOverlap tp_overlap : overlaps) {
          one.scattered_sends = !whole, one.keep_gathered = keep, one.overlap_dp = overlap;
          one.tp_overlap = tp_overlap;
          each_offload();
        }
  return all;
}

int64_t count_switches(const TrainingLayout& layout) {
  bool full = layout.recompute.full == Recomputation::Full::all;
  int64_t tensor = layout.tp > 1 ? 3 * 2 : 1, pipeline = layout.pp > 1 ? 2 : 1,
          data = layout.dp > 1 ? 2 * 2 : 1;
  int64_t sends_or_gathers = !layout.sequence_parallel || !full ? 2 : 1, offloads = full ? 4 : 8;
  return tensor * pipeline * data * sends_or_gathers * offloads;
}

std::string to_string(const CalculonSwitches& s) {
  std::string text = s.scattered_sends ? "sends=scattered" : "sends=whole";
  if (s.keep_gathered) text += ",keep_gathered=on";
  text += s.overlap_dp ? ",overlap_dp=on" : "";
  if (s.tp_overlap != TpOverlap::none)
    text += s.tp_overlap == TpOverlap::ring ? ",tp_overlap=ring" : ",tp_overlap=pipe";
  for (const auto& [on, name] :
       {std::pair(s.offload_weights, "weights"), std::pair(s.offload_activations, "activations"),
        std::pair(s.offload_optimizer, "optimizer")})
    if (on) text += std::string(",offload=") + name;
  for (const auto& [outer, name] :
       {std::pair(s.tp_outer, "tp"), std::pair(s.pp_outer, "pp"), std::pair(s.dp_outer, "dp")})
    if (outer) text += std::string(",network=") + name;
  return text;
}

}  // namespace tessera::plan
