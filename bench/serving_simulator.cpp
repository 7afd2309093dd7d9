// Engine steps per second of the event simulator on one core, under loads that keep it from skipping far and
// loads that do not:   build/plan-only/bench/serving_simulator [TRACE]
#include <cstdio>
#include <cstdlib>

#include "core/clock.h"
#include "plan/catalogue.h"
#include "plan/serving/simulator.h"

namespace tessera::plan::serving {
namespace {

void measure(const char* name, const Deployment& d, const std::vector<Request>& requests,
             const SimulationOptions& options) {
  auto start = Clock::now();
  Result<Simulation> s = simulate(d, requests, options);
  double seconds = seconds_since(start);
  if (!s) {
    std::printf("%-44s %s\n", name, s.error().message.c_str());
    return;
  }
  std::printf("%-44s %9lld steps in %6.3f s: %6.2f M steps/s, %8.0f x real time, TTFT p50 %7.1f p99 %8.1f ms\n",
              name, static_cast<long long>(s->steps), seconds, static_cast<double>(s->steps) / seconds / 1e6,
              s->seconds / seconds, 1000 * s->ttft_s.p50, 1000 * s->ttft_s.p99);
}

Status run(const char* trace) {
  Deployment d;
  TESSERA_ASSIGN_OR_RETURN(d.model, find_model("llama-3.1-70b"));
  TESSERA_ASSIGN_OR_RETURN(d.device, accelerator("h200"));
  TESSERA_ASSIGN_OR_RETURN(d.engine, EngineCatalogue::built_in().find("vllm", ""));
  d.layout = {.tp = 4};
  d.formats = formats_for(d.model, WeightFormat::fp8, WeightFormat::fp8, 1);
  for (int64_t users : {4, 16, 64, 256}) {
    auto requests =
        draw_requests({.requests = 40 * users, .input_tokens = 1024, .output_tokens = 1024, .shortest = 0.8});
    measure(fmt::format("closed loop, {} users, 1024 in, 1024 out", users).c_str(), d, requests,
            {.users = users});
  }
  auto poisson = draw_requests(
      {.requests = 5000, .rate = 4, .input_tokens = 1024, .output_tokens = 1024, .shortest = 0.1});
  measure("Poisson arrivals, 4 per second", d, poisson, {});
  if (!trace) return {};
  TESSERA_ASSIGN_OR_RETURN(std::vector<Request> requests, read_trace(trace, 10'000'000));
  measure("trace, prefixes cached", d, requests, {});
  return {};
}

}  // namespace
}  // namespace tessera::plan::serving

int main(int argc, char** argv) {
  double load = 0;
  getloadavg(&load, 1);
  std::printf("load average %.1f, one thread\n", load);
  tessera::Status status = tessera::plan::serving::run(argc > 1 ? argv[1] : nullptr);
  if (!status) std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
  return status ? 0 : 1;
}
