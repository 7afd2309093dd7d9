#include "plan/training/gpu_search.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "core/clock.h"
#include "core/numbers.h"
#include "plan/training/calculon_search.h"
#include "plan/training/gpu_bounds.h"
#include "plan/training/gpu_candidates.h"

namespace tessera::plan {
namespace {

TrainingSetup setup_of(const GpuPlanRequest& request, const TrainingLayout& layout) {
  return {.model = request.model, .work = request.work, .layout = layout, .options = request.options};
}

double steps_of(const GpuPlanRequest& request) {
  return request.tokens > 0 ? request.tokens / real(request.work.seq * request.work.global_batch) : 1;
}

GpuPrediction finish(const GpuPlanRequest& request, const TrainingLayout& layout) {
  GpuPrediction one;
  one.setup = setup_of(request, layout);
  one.step = *training_step_time(one.setup, request.cluster, request.software);
  one.memory = training_memory(one.setup);
  one.peak_bytes = fullest(one.memory).device;
  one.fits = one.peak_bytes <= request.cluster.device.memory_bytes;
  one.goodput = goodput_of(request, layout.devices());
  double seconds = one.step.seconds;
  if (request.tokens > 0) seconds *= steps_of(request) / one.goodput.share;
  double devices = real(layout.devices());
  devices += one.goodput.spare_hosts * real(request.cluster.reliability.devices_per_host);
  one.cost = run_cost(request.cluster, devices, seconds, one.step.power_share);
  return one;
}

Status check_request(const GpuPlanRequest& request) {
  if (request.gpus < 1) return invalid("gpus = {}, expected at least 1", request.gpus);
  if (request.min_gpus > request.gpus)
    return invalid("min gpus = {}, expected at most the {} given", request.min_gpus, request.gpus);
  if (request.max_days > 0 && request.tokens <= 0)
    return invalid("a limit of {} days needs the tokens of the run", request.max_days);
  if (request.work.global_batch < 1 || request.work.seq < 1)
    return invalid("seq = {}, global batch = {}: expected positive numbers", request.work.seq,
                   request.work.global_batch);
  bool calculon = request.space == SearchSpace::calculon;
  if (calculon && (request.model.is_moe() || request.model.kinds.front().mixer.heads < 1))
    return invalid("space calculon describes dense transformers; {} is none: use the default space",
                   request.model.name);
  if (calculon && (request.objective != Objective::time || request.min_gpus > 0 || request.max_days > 0))
    return invalid("space calculon ranks by time on all devices: drop objective, min gpus and max days");
  if (!request.layout) return {};
  if (request.layout->devices() != request.gpus)
    return invalid("layout {} uses {} devices but {} are given", to_string(*request.layout),
                   request.layout->devices(), request.gpus);
  return validate(setup_of(request, *request.layout));
}

// Closed forms of pipelines are a few per cent off the recurrence where stages are uneven: so many more than
// asked for are timed by it before the best are taken.
constexpr int64_t kMoreFinalists = 22;

struct Ranked {
  double value = 0;
  size_t group = 0, member = 0;  // of equal values, the first of the space wins
  TrainingLayout layout;
  bool operator<(const Ranked& other) const {
    return std::tie(value, group, member) < std::tie(other.value, other.group, other.member);
  }
};

class Search {
 public:
  explicit Search(const GpuPlanRequest& request) : request_(request), setup_(setup_of(request, {})) {}

  std::vector<Ranked> best() {
    auto groups = candidate_groups(request_);
    std::vector<std::pair<double, size_t>> order;
    for (size_t index = 0; index < groups.size(); ++index)
      order.emplace_back(floor_value(groups[index]), index);
    std::sort(order.begin(), order.end());
    for (const auto& [floor, index] : order) visit(groups[index], index, floor);
    return std::move(best_);
  }
  const SearchCounts& counts() const { return counts_; }

  // The least memory of any layout of the space, once nothing fits.
  std::optional<Ranked> smallest() {
    std::optional<Ranked> smallest;
    for (const CandidateGroup& group : candidate_groups(request_))
      for (const TrainingLayout& layout : group_members(request_, group)) {
        setup_.layout = layout;
        if (!validate(setup_).ok()) continue;
        double bytes = memory_.fullest(setup_).device;
        if (!smallest || bytes < smallest->value) smallest = {.value = bytes, .layout = layout};
      }
    return smallest;
  }

 private:
  double value(int64_t gpus, double step_s, double busy) {
    return objective_value(request_.objective, request_.cluster, real(gpus), failures(gpus), step_s, busy);
  }
  const Goodput& failures(int64_t gpus) {
    auto found = failures_.find(gpus);
    if (found != failures_.end()) return found->second;
    return failures_.emplace(gpus, request_.tokens > 0 ? goodput_of(request_, gpus) : Goodput{}).first->second;
  }
  double floor_value(const CandidateGroup& group) {
    setup_.layout = group.layers;
    const ModelTimes& times = steps_.times(setup_, request_.cluster, request_.software);
    return value(group.gpus, step_floor_s(setup_, times, request_.software, group.gpus), 0);
  }
  bool is_beaten(double value) const { return best_.size() >= finalists_ && value > best_.back().value; }
  void visit(const CandidateGroup& group, size_t index, double floor) {
    auto members = group_members(request_, group);
    counts_.space += static_cast<int64_t>(members.size());
    if (is_beaten(floor)) {
      counts_.beaten += static_cast<int64_t>(members.size());
      return;
    }
    for (size_t member = 0; member < members.size(); ++member)
      evaluate({.group = index, .member = member, .layout = std::move(members[member])});
  }
  void evaluate(Ranked one) {
    setup_.layout = one.layout;
    double capacity = request_.cluster.device.memory_bytes;
    if (memory_floor_bytes(setup_, memory_.model(setup_)) > capacity) return void(++counts_.too_large);
    if (!validate(setup_).ok()) return void(++counts_.invalid);
    if (memory_.fullest(setup_).device > capacity) return void(++counts_.too_large);
    TrainingStep step = training_step_time(setup_, request_.cluster, request_.software, steps_);
    ++counts_.evaluated;
    int64_t gpus = one.layout.devices();
    double days = step.seconds / failures(gpus).share * steps_of(request_) / 86400;
    if (request_.max_days > 0 && days > request_.max_days) return;
    one.value = value(gpus, step.seconds, step.power_share);
    if (is_beaten(one.value)) return;
    best_.insert(std::upper_bound(best_.begin(), best_.end(), one), std::move(one));
    if (best_.size() > finalists_) best_.pop_back();
  }

  const GpuPlanRequest& request_;
  const size_t finalists_ = num_finalists(request_);
  TrainingSetup setup_;
  StepTerms steps_;
  MemoryTerms memory_;
  std::map<int64_t, Goodput> failures_;  // by devices
  std::vector<Ranked> best_;
  SearchCounts counts_;
};

Infeasible memory_miss(const GpuPlanRequest& request, const TrainingLayout& layout, double bytes) {
  return {"memory of the fullest device, at best with " + to_string(layout), gib(bytes),
          gib(request.cluster.device.memory_bytes), "GiB"};
}

// Why nothing came out: time, memory, or no layout at all; each with the closest miss.
Infeasible why_nothing(const GpuPlanRequest& request, Search& search) {
  if (request.max_days > 0) {
    GpuPlanRequest fastest = request;
    fastest.max_days = 0, fastest.top = 1, fastest.objective = Objective::time;
    auto best = Search(fastest).best();
    if (!best.empty())
      return {"length of the run, at best with " + to_string(best[0].layout),
              best[0].value * steps_of(request) / 86400, request.max_days, "days"};
  }
  if (auto smallest = search.smallest()) return memory_miss(request, smallest->layout, smallest->value);
  return {"layouts whose degrees divide the model, the batch and the devices", 1, 0, "layouts"};
}

GpuPlan plan_one(const GpuPlanRequest& request) {
  GpuPlan plan;
  GpuPrediction one = finish(request, *request.layout);
  plan.counts.space = plan.counts.evaluated = 1;
  double days = one.cost.hours / 24;
  if (!one.fits)
    plan.infeasible.push_back(memory_miss(request, *request.layout, one.peak_bytes));
  else if (request.max_days > 0 && days > request.max_days)
    plan.infeasible.push_back({"length of the run", days, request.max_days, "days"});
  else
    plan.ranked.push_back(std::move(one));
  return plan;
}

GpuPlan plan_space(const GpuPlanRequest& request) {
  GpuPlan plan;
  Search search(request);
  for (const Ranked& one : search.best()) plan.ranked.push_back(finish(request, one.layout));
  rank_finalists(request, plan.ranked);
  plan.counts = search.counts();
  if (plan.ranked.empty()) plan.infeasible.push_back(why_nothing(request, search));
  return plan;
}

}  // namespace

size_t num_finalists(const GpuPlanRequest& request) {
  return static_cast<size_t>(request.top + kMoreFinalists);
}

void rank_finalists(const GpuPlanRequest& request, std::vector<GpuPrediction>& finalists) {
  std::erase_if(finalists, [&](const GpuPrediction& one) {
    return request.max_days > 0 && one.cost.hours / 24 > request.max_days;
  });
  // Values that differ by the rounding of sums are equal.
  auto key = [&](const GpuPrediction& one) {
    return std::pair(static_cast<float>(value_of(request, one)), one.peak_bytes);
  };
  std::stable_sort(finalists.begin(), finalists.end(),
                   [&](const GpuPrediction& a, const GpuPrediction& b) { return key(a) < key(b); });
  if (finalists.size() > static_cast<size_t>(request.top)) finalists.resize(static_cast<size_t>(request.top));
}

double value_of(const GpuPlanRequest& request, const GpuPrediction& one) {
  return objective_value(request.objective, request.cluster, real(one.setup.layout.devices()),
                         request.tokens > 0 ? one.goodput : Goodput{}, one.step.seconds, one.step.power_share);
}

Goodput goodput_of(const GpuPlanRequest& request, int64_t devices) {
  // A checkpoint saves 16-bit weights and float32 master and moments; each rank writes its share.
  double state_bytes = tally(request.model).total * 14 / real(devices);
  return best_goodput(failure_model(request.cluster, real(devices), state_bytes, request.failures));
}

std::string bound_by(const TrainingStep& step) {
  const TrainingBreakdown& parts = step.breakdown;
  const std::pair<const char*, double> causes[] = {{"tensor-parallel communication", parts.tp},
                                                   {"context-parallel communication", parts.cp},
                                                   {"expert all-to-all", parts.ep},
                                                   {"pipeline sends", parts.pp},
                                                   {"gradient communication", parts.dp},
                                                   {"pipeline bubble", parts.bubble},
                                                   {"optimizer", parts.optimizer},
                                                   {"host", parts.host}};
  auto largest = std::max_element(std::begin(causes), std::end(causes),
                                  [](const auto& a, const auto& b) { return a.second < b.second; });
  return largest->second > 0.1 * step.seconds ? largest->first : "compute";
}

Result<GpuPrediction> predict_training(const GpuPlanRequest& request, const TrainingLayout& layout) {
  TESSERA_RETURN_IF_ERROR(validate(setup_of(request, layout)));
  return finish(request, layout);
}

Result<GpuPlan> plan_training(const GpuPlanRequest& request) {
  Clock::time_point started = Clock::now();
  TESSERA_RETURN_IF_ERROR(check_request(request));
  bool calculon = request.space == SearchSpace::calculon;
  GpuPlan plan = request.layout ? plan_one(request) : calculon ? search_calculon(request) : plan_space(request);
  plan.seconds = seconds_since(started);
  return plan;
}

}  // namespace tessera::plan
