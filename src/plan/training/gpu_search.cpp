#include "plan/training/gpu_search.h"

#include <algorithm>
#include <chrono>

#include "plan/training/gpu_candidates.h"
#include "plan/training/step_terms.h"

namespace tessera::plan {
namespace {

double real(int64_t value) {
  return static_cast<double>(value);
}

struct Timed {
  TrainingLayout layout;
  TrainingStep step;
};

TrainingSetup setup_of(const GpuPlanRequest& request, const TrainingLayout& layout) {
  return {.model = request.model, .work = request.work, .layout = layout, .options = request.options};
}

// State that a checkpoint saves: each rank writes its share of 16-bit weights and float32 master and moments.
double state_bytes_per_device(const GpuPlanRequest& request) {
  return tally(request.model).total * 14 / real(request.gpus);
}

void price(const GpuPlanRequest& request, GpuPrediction& one) {
  double devices = real(request.gpus);
  double state = state_bytes_per_device(request);
  one.goodput = best_goodput(failure_model(request.cluster, devices, state, request.failures));
  double seconds = one.step.seconds;
  if (request.tokens > 0) {
    double steps = request.tokens / real(request.work.seq * request.work.global_batch);
    seconds *= steps / one.goodput.share;
  }
  devices += one.goodput.spare_hosts * real(request.cluster.reliability.devices_per_host);
  one.cost = run_cost(request.cluster, devices, seconds, one.step.power_share);
}

GpuPrediction finish(const GpuPlanRequest& request, const Timed& timed) {
  GpuPrediction one;
  one.setup = setup_of(request, timed.layout);
  one.step = *training_step_time(one.setup, request.cluster, request.software);  // with every stage
  one.memory = training_memory(one.setup);
  one.peak_bytes = fullest(one.memory).device;
  one.fits = one.peak_bytes <= request.cluster.device.memory_bytes;
  if (one.fits) price(request, one);
  return one;
}

Status check_request(const GpuPlanRequest& request) {
  if (request.gpus < 1) return invalid("gpus = {}, expected at least 1", request.gpus);
  if (request.work.global_batch < 1 || request.work.seq < 1)
    return invalid("seq = {}, global batch = {}: expected positive numbers", request.work.seq,
                   request.work.global_batch);
  if (request.layout && request.layout->devices() != request.gpus)
    return invalid("layout {} uses {} devices but {} are given", to_string(*request.layout),
                   request.layout->devices(), request.gpus);
  return {};
}

// The closest miss says what would have to change.
GpuInfeasible nearest_miss(const GpuPlanRequest& request, const GpuPrediction& smallest) {
  return {"memory of the fullest device, at best with " + to_string(smallest.setup.layout),
          smallest.peak_bytes / (1 << 30), request.cluster.device.memory_bytes / (1 << 30), "GiB"};
}

}  // namespace

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

Result<GpuPlan> plan_training(const GpuPlanRequest& request) {
  auto started = std::chrono::steady_clock::now();
  TESSERA_RETURN_IF_ERROR(check_request(request));
  GpuPlan plan;
  auto layouts = request.layout ? std::vector{*request.layout} : training_candidates(request);
  plan.space = static_cast<int64_t>(layouts.size());
  std::vector<Timed> timed;
  StepTerms terms;
  TrainingSetup setup = setup_of(request, {});
  for (const TrainingLayout& layout : layouts) {
    setup.layout = layout;
    Status valid = validate(setup);
    if (!valid && request.layout) return valid.error();
    if (valid) timed.push_back({layout, training_step_time(setup, request.cluster, request.software, terms)});
  }
  plan.evaluated = static_cast<int64_t>(timed.size());
  std::stable_sort(timed.begin(), timed.end(),
                   [](const Timed& a, const Timed& b) { return a.step.seconds < b.step.seconds; });
  std::optional<GpuPrediction> smallest;
  size_t looked = 0;
  for (; looked < timed.size() && plan.ranked.size() < static_cast<size_t>(request.top); ++looked) {
    GpuPrediction one = finish(request, timed[looked]);
    if (one.fits)
      plan.ranked.push_back(std::move(one));
    else if (!smallest || one.peak_bytes < smallest->peak_bytes)
      smallest = std::move(one);
  }
  plan.pruned = plan.space - static_cast<int64_t>(looked);
  if (plan.ranked.empty()) {
    if (smallest) plan.infeasible.push_back(nearest_miss(request, *smallest));
    if (timed.empty())
      plan.infeasible.push_back(
          {"layouts whose degrees divide the model, the batch and the devices", 1, 0, "layouts"});
  }
  plan.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return plan;
}

Result<GpuPrediction> predict_training(const GpuPlanRequest& request, const TrainingLayout& layout) {
  TESSERA_ASSIGN_OR_RETURN(TrainingStep step,
                           training_step_time(setup_of(request, layout), request.cluster, request.software));
  GpuPrediction one = finish(request, {layout, std::move(step)});
  if (!one.fits) price(request, one);
  return one;
}

}  // namespace tessera::plan
