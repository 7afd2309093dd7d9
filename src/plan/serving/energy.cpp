#include "plan/serving/energy.h"

#include <algorithm>

#include "core/toml.h"
#include "plan/embedded.h"
#include "plan/training/run_cost.h"

namespace tessera::plan::serving {
namespace {

double streaming_share() {
  static const double share = [] {
    for (const EmbeddedFile& file : embedded_files())
      if (file.path == "facility.toml")
        return parse_toml(file.text, file.path).value().root.at("streaming_power_share").get<double>();
    TESSERA_REQUIRE(false, "facility.toml is not embedded");
    return 0.0;
  }();
  return share;
}

}  // namespace

void Activity::add(const StepBreakdown& step, double share) {
  double total = step.total();
  if (total <= 0) return;
  multiplying += share * step.multiplying / total;
  streaming += share * step.streaming / total;
}

ServingCost serving_cost(const Accelerator& device, const Activity& activity, double tokens_per_s_gpu) {
  GpuCluster site;
  site.power = device.power;
  site.economy = device.economy;
  double watts = mean_device_w(device.power, activity.multiplying + streaming_share() * activity.streaming);
  double seconds = 1 / std::max(1e-12, tokens_per_s_gpu);
  RunCost cost = measured_cost(site, 1, seconds, watts);
  return {.watts = watts * device.power.pue,
          .usd = cost.usd,
          .joules = cost.energy_mwh * 3.6e9,
          .co2_g = cost.co2_t * 1e6};
}

}  // namespace tessera::plan::serving
