#include "plan/training/gpu_candidates.h"

#include <algorithm>
#include <numeric>

namespace tessera::plan {
namespace {

// Powers of two up to `most` that divide `number`.
std::vector<int64_t> dividing_powers(int64_t number, int64_t most) {
  std::vector<int64_t> powers;
  for (int64_t power = 1; power <= most && number % power == 0; power *= 2) powers.push_back(power);
  return powers;
}

int64_t common_heads(const Blueprint& model) {
  int64_t heads = 0;
  for (const Layer& layer : model.kinds)
    if (layer.mixer.kind != MixerKind::none) heads = std::gcd(heads, layer.mixer.heads);
  return std::max<int64_t>(1, heads);
}

int64_t experts_of(const Blueprint& model) {
  int64_t experts = 0;
  for (const Layer& layer : model.kinds)
    if (layer.ffn.kind == FfnKind::moe) experts = std::gcd(experts, layer.ffn.experts);
  return std::max<int64_t>(1, experts);
}

std::vector<int64_t> pipeline_depths(int64_t layers, int64_t gpus) {
  std::vector<int64_t> depths;
  for (int64_t pp = 1; pp <= std::min<int64_t>(layers, 128); ++pp) {
    // Even stages, or a power of two with stages that differ by a layer.
    bool power = (pp & (pp - 1)) == 0;
    if (gpus % pp == 0 && (layers % pp == 0 || power)) depths.push_back(pp);
  }
  return depths;
}

std::vector<int64_t> device_counts(const GpuPlanRequest& request) {
  std::vector<int64_t> counts = {request.gpus};
  int64_t least = request.min_gpus > 0 ? request.min_gpus : request.gpus;
  while (counts.back() % 2 == 0 && counts.back() / 2 >= least) counts.push_back(counts.back() / 2);
  return counts;
}

std::vector<int64_t> micro_batches(const GpuPlanRequest& request) {
  return request.micro_batch > 0 ? std::vector{request.micro_batch} : std::vector<int64_t>{1, 2, 4, 8};
}

// From the mildest to the fullest, as recipes have them: none; what is cheap to compute again; the latents of
// MLA and whole feed-forward parts too; all.
std::vector<Recomputation> recomputations(const GpuPlanRequest& request) {
  bool latent = false;
  for (const Layer& layer : request.model.kinds) latent = latent || layer.mixer.kind == MixerKind::mla;
  Recomputation cheap{.core_attention = !request.options.flash_attention, .norm = true};
  cheap.moe_act = request.model.is_moe();
  Recomputation wide = cheap;
  wide.mla_up = latent, wide.mlp = true;
  return {{}, cheap, wide, {.full = Recomputation::Full::all}};
}

std::vector<CandidateGroup> groups_of(const GpuPlanRequest& request, int64_t gpus) {
  std::vector<CandidateGroup> groups;
  int64_t domain = std::min<int64_t>(request.cluster.inner().devices, 64);
  int64_t most_cp = std::max<int64_t>(1, request.work.seq / 16384);
  for (int64_t tp : dividing_powers(common_heads(request.model), domain))
    for (int64_t cp : dividing_powers(request.work.seq, most_cp)) {
      if (gpus % (tp * cp) != 0) continue;
      for (int64_t ep : dividing_powers(experts_of(request.model), gpus))
        for (int64_t micro_batch : micro_batches(request))
          for (const Recomputation& recompute : recomputations(request)) {
            CandidateGroup& group = groups.emplace_back();
            group.gpus = gpus;
            group.layers.tp = tp, group.layers.cp = cp, group.layers.ep = ep, group.layers.etp = ep > 1 ? 1 : 0;
            group.layers.micro_batch = micro_batch, group.layers.recompute = recompute;
            group.layers.sequence_parallel = tp > 1;
          }
    }
  return groups;
}

std::vector<int64_t> virtual_stages(int64_t layers, int64_t pp, int64_t slots) {
  std::vector<int64_t> chunks = {1};
  int64_t depth = layers / pp;
  if (pp > 1 && slots % pp == 0)
    for (int64_t more = 2; more <= depth; ++more)
      if (depth % more == 0) chunks.push_back(more);
  return chunks;
}

// The layout, and with a quarter, half and three quarters of each chunk's layers recomputed in full where the
// group's layers keep everything: it only adds to the time of the group.
void add_with_partial_recomputation(std::vector<TrainingLayout>& members, TrainingLayout layout,
                                    int64_t chunk_layers) {
  members.push_back(layout);
  if (layout.recompute != Recomputation{}) return;
  int64_t before = 0;
  for (int64_t quarters : {1, 2, 3}) {
    int64_t some = chunk_layers * quarters / 4;
    if (some == before) continue;
    layout.recompute = {.full = Recomputation::Full::first, .layers = some};
    members.push_back(layout);
    before = some;
  }
}

// Schedules other than 1F1B, where their tables can be made.
void add_other_schedules(std::vector<TrainingLayout>& members, TrainingLayout layout,
                         const std::vector<PipelineKind>& schedules, int64_t layers, int64_t slots) {
  layout.virtual_stages = 1;
  for (PipelineKind kind : schedules) {
    int64_t chunks = chunks_of(kind, 1), pieces = pieces_of(kind, layout.pp, chunks);
    if (kind == PipelineKind::one_f_one_b || layout.pp == 1 || pieces > layers) continue;
    if (!check_table(kind, layout.pp, chunks, slots).ok()) continue;
    layout.schedule = kind;
    add_with_partial_recomputation(members, layout, layers / pieces);
  }
}

}  // namespace

std::vector<PipelineKind> schedules_tried(const GpuPlanRequest& request) {
  return request.schedules.empty() ? request.software.schedules : request.schedules;
}

std::vector<CandidateGroup> candidate_groups(const GpuPlanRequest& request) {
  std::vector<CandidateGroup> all;
  for (int64_t gpus : device_counts(request)) {
    auto groups = groups_of(request, gpus);
    all.insert(all.end(), groups.begin(), groups.end());
  }
  return all;
}

std::vector<TrainingLayout> group_members(const GpuPlanRequest& request, const CandidateGroup& group) {
  std::vector<TrainingLayout> members;
  TrainingLayout layout = group.layers;
  int64_t layers = request.model.layers(), batch = request.work.global_batch;
  std::vector<PipelineKind> schedules = schedules_tried(request);
  bool plain = std::count(schedules.begin(), schedules.end(), PipelineKind::one_f_one_b) > 0;
  for (int64_t pp : pipeline_depths(layers, group.gpus / (layout.tp * layout.cp))) {
    int64_t replicas = group.gpus / (layout.tp * layout.cp * pp);
    if (batch % (replicas * layout.micro_batch) != 0) continue;
    if (replicas * layout.cp * layout.tp % layout.ep != 0) continue;
    layout.pp = pp, layout.dp = replicas, layout.fsdp = 1, layout.sharding = Sharding::optimizer;
    int64_t slots = batch / replicas / layout.micro_batch;
    // One stage is the same under every schedule.
    if (plain || pp == 1)
      for (int64_t chunks : virtual_stages(layers, pp, slots)) {
        layout.virtual_stages = chunks;
        add_with_partial_recomputation(members, layout, layers / pp / chunks);
      }
    add_other_schedules(members, layout, schedules, layers, slots);
    if (pp > 1 || replicas == 1) continue;
    layout.dp = 1, layout.fsdp = replicas, layout.sharding = Sharding::parameters, layout.virtual_stages = 1;
    add_with_partial_recomputation(members, layout, layers);
  }
  return members;
}

std::vector<TrainingLayout> training_candidates(const GpuPlanRequest& request) {
  std::vector<TrainingLayout> layouts;
  for (const CandidateGroup& group : candidate_groups(request)) {
    auto members = group_members(request, group);
    layouts.insert(layouts.end(), members.begin(), members.end());
  }
  return layouts;
}

}  // namespace tessera::plan
