// Layouts per second of the training search on one core: step time and MFU, and with the memory of every stage.
//     cmake --build --preset plan-only --target bench_plan_search && build/plan-only/bench/plan_search
// Calculon (2024-02) evaluates about 100 a second and core with time, memory and MFU; measured apart.
#include <algorithm>
#include <cstdio>

#include "core/clock.h"
#include "plan/training/gpu_candidates.h"
#include "plan/training/memory_terms.h"
#include "plan/training/step_terms.h"
#include "plan/training/testing.h"

using namespace tessera;
using namespace tessera::plan;
using namespace tessera::plan::testing;

namespace {

void measure(const GpuPlanRequest& request) {
  auto layouts = training_candidates(request);
  TrainingSetup setup = setup_for(request);
  std::erase_if(layouts, [&](const TrainingLayout& layout) {
    setup.layout = layout;
    return !validate(setup).ok();
  });
  constexpr int kRounds = 20;
  auto count = static_cast<double>(layouts.size()) * kRounds;
  double sink = 0;
  auto start = Clock::now();
  for (int round = 0; round < kRounds; ++round) {
    StepTerms terms;
    for (const TrainingLayout& layout : layouts) {
      setup.layout = layout;
      sink += training_step_time(setup, request.cluster, request.software, terms).seconds;
    }
  }
  double timed = count / seconds_since(start);
  start = Clock::now();
  for (const TrainingLayout& layout : layouts) {
    setup.layout = layout;
    sink += training_step_time(setup, request.cluster, request.software)->seconds;
  }
  double alone = count / kRounds / seconds_since(start);
  start = Clock::now();
  for (const TrainingLayout& layout : layouts) {
    setup.layout = layout;
    sink += fullest(training_memory(setup)).device;
  }
  double memory = count / kRounds / seconds_since(start);
  start = Clock::now();
  for (int round = 0; round < kRounds; ++round) {
    MemoryTerms terms;
    for (const TrainingLayout& layout : layouts) {
      setup.layout = layout;
      sink += terms.fullest(setup).device;
    }
  }
  double memory_shared = count / seconds_since(start);
  std::printf(
      "%-16s %7lld GPUs %7zu layouts  timed %8.0f/s  one by one %7.0f/s  memory %7.0f/s  memory shared "
      "%7.0f/s\n",
      request.model.name.c_str(), static_cast<long long>(request.gpus), layouts.size(), timed, alone, memory,
      memory_shared);
  if (sink < 0) std::puts("");
}

}  // namespace

int main() {
  measure(request_for("gpt3-175b", "a100-80g", 64, 2048, 64));
  measure(request_for("gpt3-175b", "a100-80g", 1024, 2048, 1536));
  measure(request_for("llama-3.1-405b", "h100", 16384, 8192, 2048));
  measure(request_for("moe-10t", "gb200-nvl72", 98304, 4096, 98304));
}
