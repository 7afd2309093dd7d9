#include "plan/training/calculon_search.h"

#include <algorithm>
#include <tuple>

#include "core/numbers.h"
#include "plan/training/gpu_bounds.h"
#include "plan/training/in_flight.h"
#include "plan/training/saved_tensors.h"

namespace tessera::plan {
namespace {

// All groups on the innermost links. (Members of a mesh share its links by their number: it keeps its size.)
GpuCluster inner_only(GpuCluster cluster) {
  if (!cluster.tiers.front().mesh) cluster.tiers.front().devices = int64_t{1} << 40;
  return cluster;
}

// All groups beyond them: each device is a domain of its own.
GpuCluster outer_only(GpuCluster cluster) {
  cluster.tiers.front().devices = 1;
  return cluster;
}

bool offloads(const CalculonSwitches& s) {
  return s.offload_weights || s.offload_activations || s.offload_optimizer;
}

// What one kind of layer keeps more when the inputs of its products stay gathered.
double gathered_inputs(const TrainingSetup& setup) {
  return 2 * hidden_bytes(setup) * (1 - 1 / real(setup.layout.tp));
}

void leave_two_layers(const TrainingSetup& setup, const CalculonSwitches& s, const ModelMemory& model,
                      TrainingMemory& memory) {
  double unit = 0, kept = 0;
  for (const KindMemory& kind : model.kinds) {
    unit = std::max(unit, kind.elements.largest_layer);
    kept = std::max(kept, kind.kept[0] + (s.keep_gathered ? gathered_inputs(setup) : 0));
  }
  StateBytes two = state_bytes(setup, {.dense = 2 * unit});
  if (s.offload_weights) memory.parameters = std::min(memory.parameters, two.parameters);
  if (s.offload_optimizer) memory.optimizer = std::min(memory.optimizer, two.optimizer);
  if (s.offload_activations) memory.activations = std::min(memory.activations, 2 * kept);
}

}  // namespace

CalculonModel::CalculonModel(const GpuPlanRequest& request)
    : request_(request),
      setup_{.model = request.model, .work = request.work, .layout = {}, .options = request.options},
      software_(request.software),
      networks_{inner_only(request.cluster), outer_only(request.cluster)} {}

void CalculonModel::use(const CalculonCandidate& candidate) {
  const CalculonSwitches& s = candidate.switches;
  setup_.layout = candidate.layout;
  setup_.work.global_batch = calculon_batch(request_, candidate.layout.dp);
  setup_.options.overlap_dp = s.overlap_dp;
  setup_.options.overlap_tp = s.tp_overlap == TpOverlap::ring;
  // The first of tp tiles waits as without overlap, the others as under a named one.
  double first = 1 / real(candidate.layout.tp);
  double left = s.tp_overlap == TpOverlap::pipe ? first + (1 - first) * kNamedOverlapLeft : 1;
  software_.tp_exposed = request_.software.tp_exposed * left;
}

TrainingSetup CalculonModel::setup(const CalculonCandidate& candidate) const {
  TrainingSetup setup = setup_;
  setup.layout = candidate.layout;
  setup.work.global_batch = calculon_batch(request_, candidate.layout.dp);
  return setup;
}

double CalculonModel::samples(const TrainingLayout& layout) const {
  return real(calculon_batch(request_, layout.dp));
}

bool CalculonModel::is_valid(const CalculonCandidate& candidate) {
  use(candidate);
  const TrainingLayout& l = candidate.layout;
  const CalculonSwitches& s = candidate.switches;
  int64_t inside = (s.tp_outer ? 1 : l.tp) * (s.pp_outer ? 1 : l.pp) * (s.dp_outer ? 1 : l.dp);
  if (inside > request_.cluster.inner().devices) return false;
  if ((s.tp_outer || s.pp_outer || s.dp_outer) && request_.cluster.tiers.size() < 2) return false;
  bool host = request_.cluster.device.host_bytes_per_s > 0 && request_.model.layers() / l.pp >= 3;
  if (offloads(s) && !host) return false;
  return validate(setup_).ok();
}

TrainingMemory CalculonModel::memory(const CalculonCandidate& candidate) {
  use(candidate);
  const CalculonSwitches& s = candidate.switches;
  const StagesLayers& stages = memory_.stages(setup_);
  const ModelMemory& model = memory_.model(setup_);
  double layers_per_chunk = real(request_.model.layers()) / real(setup_.layout.pp * setup_.chunks());
  TrainingMemory most;
  for (size_t index = 0; index < stages.different.size(); ++index) {
    int64_t stage = stages.first[index];
    TrainingMemory memory = stage_memory(setup_, stage, stages.different[index], model);
    if (s.keep_gathered)
      memory.activations += chunks_in_flight(setup_, stage) * layers_per_chunk * gathered_inputs(setup_);
    if (offloads(s)) leave_two_layers(setup_, s, model, memory);
    add_overheads(memory, *model.constants);
    if (memory.required > most.required) most = memory;
  }
  return most;
}

TrainingStep CalculonModel::step(const CalculonCandidate& candidate) {
  use(candidate);
  const CalculonSwitches& s = candidate.switches;
  const TrainingLayout& l = candidate.layout;
  StepTerms& terms = steps_[s.tp_outer][s.dp_outer];
  // Layers first, on the network of tp: the step finds them and prices the exchange of gradients on that of dp.
  const ModelTimes& times = terms.times(setup_, networks_[s.tp_outer], software_);
  TrainingStep step = training_step_time(setup_, networks_[s.dp_outer], software_, terms);
  double send_s = 0, wait_s = 0, slowest = 0, slowest_waits = 0, m = real(setup_.micro_batches());
  if (l.pp > 1) {
    double bytes = times.boundary_bytes * (s.scattered_sends || l.sequence_parallel ? 1 : real(l.tp));
    send_s =
        software_.pp_exposed * collective_s(networks_[s.pp_outer], CollectiveKind::send, {.ranks = 2}, bytes);
  }
  stages_.assign(terms.stages.begin(), terms.stages.end());
  double rate = request_.cluster.device.host_bytes_per_s;
  const StageShapes& shapes = terms.shapes(setup_);
  for (size_t index = 0; index < stages_.size(); ++index) {
    PipelineStage& stage = stages_[index].time;
    slowest = std::max(slowest, stage.total());
    if (offloads(s)) {
      StageElements elements{.dense = terms.clocks[index].parameters.dense,
                             .experts = terms.clocks[index].parameters.experts};
      StateBytes states = state_bytes(setup_, elements);
      double kept = 0, backward = stage.backward_input + stage.backward_weight;
      const ModelMemory& model = memory_.model(setup_);
      for (size_t kind = 0; kind < model.kinds.size(); ++kind)
        kept += shapes.different[index].counts[kind] *
                (model.kinds[kind].kept[0] + (s.keep_gathered ? gathered_inputs(setup_) : 0));
      double in = s.offload_weights ? states.parameters : 0, out = s.offload_activations ? kept : 0;
      if (s.offload_optimizer) wait_s = std::max(wait_s, 2 * states.optimizer / rate - backward);
      stage.forward = std::max(stage.forward, std::max(in, out) / rate);
      stage.backward_input += std::max(0.0, (in + out) / rate - backward);
    }
    slowest_waits = std::max(slowest_waits, stage.total());
  }
  PipelineTime time =
      pipeline_closed_form(l.schedule, setup_.chunks(), setup_.micro_batches(), stages_, send_s);
  double before = step.seconds;
  step.send_s = send_s;
  step.breakdown.bubble = time.bubble;
  step.breakdown.pp = time.seconds - time.bubble - m * slowest_waits;
  step.breakdown.host += m * (slowest_waits - slowest) + wait_s;
  step.seconds = step.breakdown.total();
  double longer = step.seconds / before;
  step.low *= longer, step.high *= longer, step.mfu /= longer, step.power_share /= longer;
  step.tokens_per_s_per_device /= longer, step.tflops_per_device /= longer;
  return step;
}

double CalculonModel::floor_s_per_sample(const CalculonGroup& group) {
  use({.layout = group.layers, .switches = {}});
  setup_.work.global_batch = request_.gpus;  // the floor is linear in the batch but for a constant
  double least = 0;
  for (bool outer : {false, true}) {
    const ModelTimes& times = steps_[outer][0].times(setup_, networks_[outer], software_);
    SoftwareGeneration steady = software_;
    steady.step_s = 0;
    double floor = step_floor_s(setup_, times, steady, request_.gpus) / real(request_.gpus);
    least = outer ? std::min(least, floor) : floor;
  }
  return least;
}

namespace {

struct CalculonRanked {
  double s_per_sample = 0;
  size_t group = 0, number = 0;
  CalculonCandidate candidate;
  TrainingStep step;
  bool operator<(const CalculonRanked& other) const {
    return std::tie(s_per_sample, group, number) < std::tie(other.s_per_sample, other.group, other.number);
  }
};

bool contains(const CalculonSwitches& more, const CalculonSwitches& less) {
  return more.offload_weights >= less.offload_weights && more.offload_activations >= less.offload_activations &&
         more.offload_optimizer >= less.offload_optimizer;
}

bool same_offload(const CalculonSwitches& a, const CalculonSwitches& b) {
  return contains(a, b) && contains(b, a);
}

class CalculonSearch {
 public:
  explicit CalculonSearch(const GpuPlanRequest& request)
      : request_(request),
        model_(request),
        dominance_(request.software.contention <= 2 && request.software.dp_exposed <= 1) {}

  std::vector<CalculonRanked> best() {
    auto groups = calculon_groups(request_);
    std::vector<std::pair<double, size_t>> order;
    for (size_t index = 0; index < groups.size(); ++index)
      order.emplace_back(model_.floor_s_per_sample(groups[index]), index);
    std::sort(order.begin(), order.end());
    for (const auto& [floor, index] : order)
      for (const TrainingLayout& layout : calculon_layouts(request_, groups[index])) {
        int64_t all = count_switches(layout);
        counts_.space += all;
        if (is_beaten(floor))
          counts_.beaten += all;
        else
          visit(layout, index);
      }
    return std::move(best_);
  }
  const SearchCounts& counts() const { return counts_; }
  double least_bytes() const { return least_bytes_; }
  const TrainingLayout& least_layout() const { return least_layout_; }

 private:
  bool is_beaten(double s_per_sample) const {
    return best_.size() >= static_cast<size_t>(request_.top) && s_per_sample > best_.back().s_per_sample;
  }
  void visit(const TrainingLayout& layout, size_t group) {
    auto switches = calculon_switches(layout, dominance_);
    counts_.dominated += count_switches(layout) - static_cast<int64_t>(switches.size());
    std::vector<CalculonSwitches> enough;  // offloads with which it fits
    for (size_t index = 0; index < switches.size(); ++index) {
      CalculonCandidate one{layout, switches[index]};
      // More offloaded than it takes to fit only adds transfers. Networks do not change memory.
      auto covers = [&](const CalculonSwitches& less) {
        return dominance_ && contains(one.switches, less) && !same_offload(one.switches, less);
      };
      if (std::any_of(enough.begin(), enough.end(), covers)) {
        ++counts_.dominated;
      } else if (!model_.is_valid(one)) {
        ++counts_.invalid;
      } else if (double bytes = model_.memory(one).device; bytes > request_.cluster.device.memory_bytes) {
        ++counts_.too_large;
        if (least_bytes_ == 0 || bytes < least_bytes_) least_bytes_ = bytes, least_layout_ = layout;
      } else {
        enough.push_back(one.switches);
        offer({.group = group, .number = static_cast<size_t>(counts_.space) + index, .candidate = one});
      }
    }
  }
  void offer(CalculonRanked one) {
    one.step = model_.step(one.candidate);
    ++counts_.evaluated;
    one.s_per_sample = one.step.seconds / model_.samples(one.candidate.layout);
    if (is_beaten(one.s_per_sample)) return;
    best_.insert(std::upper_bound(best_.begin(), best_.end(), one), std::move(one));
    if (best_.size() > static_cast<size_t>(request_.top)) best_.pop_back();
  }

  const GpuPlanRequest& request_;
  CalculonModel model_;
  bool dominance_;
  std::vector<CalculonRanked> best_;
  SearchCounts counts_;
  double least_bytes_ = 0;
  TrainingLayout least_layout_;
};

GpuPrediction finish(const GpuPlanRequest& request, CalculonModel& model, const CalculonRanked& ranked) {
  GpuPrediction one;
  one.setup = model.setup(ranked.candidate);
  one.switches = to_string(ranked.candidate.switches);
  one.step = ranked.step;
  one.memory = {model.memory(ranked.candidate)};
  one.peak_bytes = one.memory.front().device;
  one.fits = true;
  one.goodput = goodput_of(request, request.gpus);
  double seconds = one.step.seconds;
  if (request.tokens > 0)
    seconds = ranked.s_per_sample * request.tokens / real(request.work.seq) / one.goodput.share;
  double devices =
      real(request.gpus) + one.goodput.spare_hosts * real(request.cluster.reliability.devices_per_host);
  one.cost = run_cost(request.cluster, devices, seconds, one.step.power_share);
  return one;
}

}  // namespace

GpuPlan search_calculon(const GpuPlanRequest& request) {
  GpuPlan plan;
  CalculonSearch search(request);
  CalculonModel model(request);
  for (const CalculonRanked& one : search.best()) plan.ranked.push_back(finish(request, model, one));
  plan.counts = search.counts();
  if (!plan.ranked.empty()) return plan;
  if (search.least_bytes() > 0)
    plan.infeasible.push_back({"memory of the fullest device, at best with " + to_string(search.least_layout()),
                               search.least_bytes() / (1 << 30),
                               request.cluster.device.memory_bytes / (1 << 30), "GiB"});
  else
    plan.infeasible.push_back(
        {"layouts whose degrees divide the model, the batch and the devices", 1, 0, "layouts"});
  return plan;
}

}  // namespace tessera::plan
