// The training search: finalised evaluations per second of one core's time (step time, memory by class, MFU),
// and whole searches by proven pruning with what they left out.
//     cmake --build --preset plan-only --target bench_plan_search && build/plan-only/bench/plan_search
// Calculon (2024-02) finalises 101 candidates per CPU second on such a machine, with the same three results.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <string_view>

#include "plan/training/calculon_search.h"
#include "plan/training/gpu_candidates.h"
#include "plan/training/testing.h"

using namespace tessera;
using namespace tessera::plan;
using namespace tessera::plan::testing;

namespace {

constexpr double kCalculonRate = 101;

double peak_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// Of this process: neighbours on the machine do not count.
double cpu_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

void print_rate(const GpuPlanRequest& request, const char* space, size_t layouts, double rate) {
  std::printf("evaluate %-15s %6lld GPUs  %-8s %8zu candidates  %9.0f /s  (%.0f x Calculon)\n",
              request.model.name.c_str(), static_cast<long long>(request.gpus), space, layouts, rate,
              rate / kCalculonRate);
}

// Every layout of our space that could start, in its order, nothing pruned; terms are built anew each round.
void measure_own(const GpuPlanRequest& request) {
  auto layouts = training_candidates(request);
  TrainingSetup setup = setup_for(request);
  std::erase_if(layouts, [&](const TrainingLayout& layout) {
    setup.layout = layout;
    return !validate(setup).ok();
  });
  double sink = 0;
  int rounds = static_cast<int>(500000 / layouts.size()) + 1;
  double start = cpu_seconds();
  for (int round = 0; round < rounds; ++round) {
    StepTerms steps;
    MemoryTerms memory;
    for (const TrainingLayout& layout : layouts) {
      setup.layout = layout;
      TrainingStep step = training_step_time(setup, request.cluster, request.software, steps);
      sink += step.seconds + step.mfu + memory.fullest(setup).device;
    }
  }
  print_rate(request, "default", layouts.size(),
             static_cast<double>(layouts.size()) * rounds / (cpu_seconds() - start));
  if (sink < 0) std::puts("");
}

// Every candidate of Calculon's space that could start, fitting or not.
void measure_calculon(const GpuPlanRequest& request) {
  CalculonModel model(request);
  std::vector<CalculonCandidate> all;
  for (const CalculonGroup& group : calculon_groups(request))
    for (const TrainingLayout& layout : calculon_layouts(request, group))
      for (const CalculonSwitches& switches : calculon_switches(layout, false))
        if (model.is_valid({layout, switches})) all.push_back({layout, switches});
  double sink = 0;
  double start = cpu_seconds();
  for (const CalculonCandidate& one : all) {
    TrainingStep step = model.step(one);
    sink += step.seconds + step.mfu + model.memory(one).device;
  }
  print_rate(request, "calculon", all.size(), static_cast<double>(all.size()) / (cpu_seconds() - start));
  if (sink < 0) std::puts("");
}

void search(GpuPlanRequest request, SearchSpace space) {
  request.space = space, request.top = 1;
  GpuPlan plan = *plan_training(request);
  const SearchCounts& counts = plan.counts;
  std::printf(
      "search %-15s %6lld GPUs  %-8s %9lld candidates  %6lld finalised  %9lld pruned  %7.3f s  best %.4g s"
      "  peak %.0f MiB\n",
      request.model.name.c_str(), static_cast<long long>(request.gpus),
      space == SearchSpace::calculon ? "calculon" : "default", static_cast<long long>(counts.space),
      static_cast<long long>(counts.evaluated), static_cast<long long>(counts.pruned()), plan.seconds,
      plan.ranked.empty() ? 0 : plan.ranked[0].step.seconds, peak_mib());
}

}  // namespace

// `rates [MODEL]`: only those, of one model.
int main(int count, char** words) {
  bool rates = count > 1 && std::string_view(words[1]) == "rates";
  std::string_view only = count > 2 ? words[2] : "";
  GpuPlanRequest small = request_for("gpt3-175b", "a100-80g", 64, 2048, 64);
  GpuPlanRequest large = request_for("gpt3-175b", "a100-80g", 1024, 2048, 1536);
  GpuPlanRequest moe = request_for("moe-10t", "gb200-nvl72", 98304, 4096, 98304);
  GpuPlanRequest uneven = request_for("moe-10t", "gb200-nvl72", 100000, 4096, 100000);
  if (!rates) {
    for (SearchSpace space : {SearchSpace::own, SearchSpace::calculon})
      search(small, space), search(large, space);
    search(moe, SearchSpace::own);
    search(uneven, SearchSpace::own);
  }
  for (const GpuPlanRequest& request :
       {small, large, request_for("llama-3.1-405b", "h100", 16384, 8192, 2048), moe})
    if (only.empty() || request.model.name == only) measure_own(request);
  if (!only.empty()) return 0;
  measure_calculon(request_for("gpt3-175b", "a100-80g", 8, 2048, 8));
  measure_calculon(small);
}
