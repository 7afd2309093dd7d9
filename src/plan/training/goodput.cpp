#include "plan/training/goodput.h"

#include <algorithm>
#include <cmath>

namespace tessera::plan {

double goodput_at(const FailureModel& model, double interval_s) {
  double m = model.mean_time_between_s;
  if (m <= 0) return interval_s / (interval_s + model.checkpoint_s);
  return interval_s / (m * std::exp(model.restart_s / m) * std::expm1((interval_s + model.checkpoint_s) / m));
}

Goodput best_goodput(const FailureModel& model) {
  if (model.mean_time_between_s <= 0) return {};
  // One maximum; around Young's sqrt(2 C M), searched in the logarithm by the golden section.
  double guess = std::sqrt(2 * std::max(model.checkpoint_s, 1e-3) * model.mean_time_between_s);
  double low = std::log(guess / 30), high = std::log(guess * 30);
  constexpr double kGolden = 0.6180339887498949;
  for (int step = 0; step < 80; ++step) {
    double left = high - kGolden * (high - low), right = low + kGolden * (high - low);
    if (goodput_at(model, std::exp(left)) < goodput_at(model, std::exp(right)))
      low = left;
    else
      high = right;
  }
  double interval = std::exp((low + high) / 2);
  return {goodput_at(model, interval), interval, 86400 / model.mean_time_between_s};
}

FailureModel failure_model(const GpuCluster& cluster, double devices, double state_bytes) {
  const Reliability& reliability = cluster.reliability;
  double hosts = std::ceil(devices / static_cast<double>(reliability.devices_per_host));
  double per_day = hosts * reliability.failures_per_1000_node_days / 1000;
  FailureModel model;
  model.mean_time_between_s = per_day > 0 ? 86400 / per_day : 0;
  double rate = cluster.device.host_bytes_per_s > 0 ? cluster.device.host_bytes_per_s : 25e9;
  // Half of the link's rate: pinned buffers are shared with the data loader and the other direction.
  model.checkpoint_s = 1 + state_bytes / (0.5 * rate);
  return model;
}

}  // namespace tessera::plan
