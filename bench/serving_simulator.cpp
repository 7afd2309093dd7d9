// Engine steps per second of the event simulator on one core, under loads that keep it from skipping far and
// loads that do not:   build/plan-only/bench/serving_simulator [TRACE]
#include <cstdio>
#include <cstdlib>

#include "core/clock.h"
#include "plan/catalogue.h"
#include "plan/serving/simulator.h"

namespace tessera::plan::serving {
namespace {

constexpr double kLeastSeconds = 0.3;  // a measurement repeats its simulation for so long

template <class Workers>
void measure(const std::string& name, const Workers& d, const std::vector<Request>& requests,
             const SimulationOptions& options) {
  auto start = Clock::now();
  int64_t steps = 0;
  double simulated = 0, seconds = 0;
  Percentiles ttft;
  while (seconds < kLeastSeconds) {
    Result<Simulation> s = simulate(d, requests, options);
    if (!s) {
      std::printf("%-44s %s\n", name.c_str(), s.error().message.c_str());
      return;
    }
    steps += s->steps, simulated += s->seconds, ttft = s->ttft_s;
    seconds = seconds_since(start);
  }
  std::printf("%-44s %9lld steps in %5.2f s: %7.2f M steps/s, %9.0f x real time, TTFT p50 %6.1f p99 %7.1f ms\n",
              name.c_str(), static_cast<long long>(steps), seconds, static_cast<double>(steps) / seconds / 1e6,
              simulated / seconds, 1000 * ttft.p50, 1000 * ttft.p99);
}

Status run(const char* trace) {
  Deployment d;
  TESSERA_ASSIGN_OR_RETURN(d.model, find_model("llama-3.1-70b"));
  TESSERA_ASSIGN_OR_RETURN(d.device, accelerator("h200"));
  TESSERA_ASSIGN_OR_RETURN(d.engine, EngineCatalogue::built_in().find("vllm", ""));
  d.layout = {.tp = 4};
  d.formats = formats_for(d.model, WeightFormat::fp8, WeightFormat::fp8, 1);
  for (int64_t users : {4, 16, 64, 256, 1024}) {
    auto requests =
        draw_requests({.requests = 40 * users, .input_tokens = 1024, .output_tokens = 1024, .shortest = 0.8});
    measure(fmt::format("closed loop, {} users, 1024 in, 1024 out", users), d, requests, {.users = users});
  }
  auto poisson = draw_requests(
      {.requests = 5000, .rate = 4, .input_tokens = 1024, .output_tokens = 1024, .shortest = 0.1});
  measure("Poisson arrivals, 4 per second", d, poisson, {});
  Disaggregated pair{.prefill = d, .decode = d, .prefill_workers = 2, .decode_workers = 2};
  measure("the same, 2 workers for prompts, 2 for answers", pair, poisson, {});
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
