#include "plan/serving/offered_load.h"

#include <algorithm>
#include <map>

#include "core/numbers.h"

namespace tessera::plan::serving {
namespace {

constexpr double kShare = 0.9;

double gpus_of(const ServingCase& c) {
  double front = real(c.layout.gpus()) * c.workers;
  return c.disaggregated ? front + real(c.decode_layout.gpus()) * c.decode_workers : front;
}

// Everything at once, with nothing after, fills an engine as a flood does.
bool saturates(const ServingCase& c) {
  return c.traffic.arrival == Arrival::flood || c.all_at_once;
}

// Output tokens per second and accelerator that a load asks for; of a closed loop, what its users took.
double offered(const ServingCase& c) {
  const Traffic& t = c.traffic;
  if (t.arrival == Arrival::open) return t.rate * t.output_tokens / gpus_of(c);
  if (c.published.tok_s_gpu > 0) return c.published.tok_s_gpu;
  double answer_s = (c.published.ttft_ms + c.published.tpot_ms * t.output_tokens) / 1000;
  return answer_s > 0 ? t.concurrency * t.output_tokens / answer_s / gpus_of(c) : 0;
}

}  // namespace

std::vector<bool> offers_less_than_saturation(const std::vector<ServingCase>& cases) {
  std::map<std::string, double> saturated;
  for (const ServingCase& c : cases)
    if (saturates(c)) saturated[c.setup] = std::max(saturated[c.setup], c.published.tok_s_gpu);
  std::vector<bool> less;
  for (const ServingCase& c : cases) {
    auto found = saturated.find(c.setup);
    bool known = found != saturated.end() && found->second > 0;
    less.push_back(!known || (!saturates(c) && offered(c) < kShare * found->second));
  }
  return less;
}

}  // namespace tessera::plan::serving
