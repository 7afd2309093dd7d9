#include "plan/training/gpu_candidates.h"

#include <algorithm>
#include <numeric>
#include <set>

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

class Enumerator {
 public:
  explicit Enumerator(const GpuPlanRequest& request) : request_(request) {}
  std::vector<TrainingLayout> all() {
    int64_t domain = std::min<int64_t>(request_.cluster.inner().devices, 64);
    for (int64_t tp : dividing_powers(common_heads(request_.model), domain))
      for (int64_t pp : pipeline_depths(request_.model.layers(), request_.gpus))
        for (int64_t cp : context_degrees()) {
          if (request_.gpus % (tp * pp * cp) != 0) continue;
          TrainingLayout layout;
          layout.tp = tp, layout.pp = pp, layout.cp = cp;
          layout.sequence_parallel = tp > 1;
          replicas(layout, request_.gpus / (tp * pp * cp));
        }
    return std::move(layouts_);
  }

 private:
  std::vector<int64_t> context_degrees() const {
    return dividing_powers(request_.work.seq, std::max<int64_t>(1, request_.work.seq / 16384));
  }
  void replicas(TrainingLayout layout, int64_t count) {
    int64_t batch = request_.work.global_batch;
    if (batch % count != 0) return;
    for (int64_t ep : dividing_powers(experts_of(request_.model), count * layout.cp * layout.tp)) {
      layout.ep = ep, layout.etp = ep > 1 ? 1 : 0;
      for (int64_t micro_batch : micro_batches(batch / count)) {
        layout.micro_batch = micro_batch;
        layout.dp = count, layout.fsdp = 1, layout.sharding = Sharding::optimizer;
        schedules(layout, batch / count / micro_batch);
        if (layout.pp > 1 || count == 1) continue;
        layout.dp = 1, layout.fsdp = count, layout.sharding = Sharding::parameters;
        recomputations(layout);
      }
    }
  }
  std::vector<int64_t> micro_batches(int64_t sequences) const {
    if (request_.micro_batch > 0)
      return sequences % request_.micro_batch == 0 ? std::vector{request_.micro_batch} : std::vector<int64_t>{};
    return dividing_powers(sequences, 8);
  }
  void schedules(TrainingLayout layout, int64_t slots) {
    int64_t layers = request_.model.layers() / layout.pp;
    std::set<int64_t> chunks = {1};
    if (layout.pp > 1 && slots % layout.pp == 0)
      for (int64_t more : {int64_t{2}, layers / 2, layers})
        if (more > 1 && layers % more == 0) chunks.insert(more);
    for (int64_t virtual_stages : chunks) {
      layout.virtual_stages = virtual_stages;
      recomputations(layout);
    }
  }
  void recomputations(TrainingLayout layout) {
    layout.recompute = {};
    layouts_.push_back(layout);
    layout.recompute.full = Recomputation::Full::all;
    layouts_.push_back(layout);
  }

  const GpuPlanRequest& request_;
  std::vector<TrainingLayout> layouts_;
};

}  // namespace

std::vector<TrainingLayout> training_candidates(const GpuPlanRequest& request) {
  return Enumerator(request).all();
}

}  // namespace tessera::plan
