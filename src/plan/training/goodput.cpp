#include "plan/training/goodput.h"

#include <algorithm>
#include <cmath>

namespace tessera::plan {
namespace {

double best_interval(const FailureModel& model) {
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
  return std::exp((low + high) / 2);
}

// Where the process of failures and checkpoints loses its time: a restart lasts until it ends or is hit itself.
void split(const FailureModel& model, double share, double interval_s, LostTime& lost) {
  lost.checkpoint = interval_s > 0 ? share * model.checkpoint_s / interval_s : 0;
  if (model.mean_time_between_s <= 0) return;
  lost.restart = -std::expm1(-model.restart_s / model.mean_time_between_s);
  lost.rework = std::max(0.0, 1 - share - lost.checkpoint - lost.restart);
}

double checkpoint_s(const GpuCluster& cluster, double state_bytes, const FailurePolicy& policy) {
  double link = cluster.device.host_bytes_per_s > 0 ? cluster.device.host_bytes_per_s : 25e9;
  double rate = policy.to_storage ? policy.storage_bytes_per_s_per_device : policy.snapshot_link_share * link;
  return policy.snapshot_s + state_bytes / rate;
}

template <class Which>
double share_of_causes(Which which) {
  double sum = 0;
  for (const FailureCause& cause : failure_causes())
    if (which(cause)) sum += cause.share;
  return sum;
}

}  // namespace

double goodput_at(const FailureModel& model, double interval_s) {
  double m = model.mean_time_between_s;
  if (m <= 0) return interval_s / (interval_s + model.checkpoint_s);
  return interval_s / (m * std::exp(model.restart_s / m) * std::expm1((interval_s + model.checkpoint_s) / m));
}

Goodput best_goodput(const FailureModel& model) {
  Goodput goodput;
  bool fails = model.mean_time_between_s > 0;
  goodput.interval_s = model.interval_s > 0 ? model.interval_s : fails ? best_interval(model) : 0;
  double share = goodput.interval_s > 0 ? goodput_at(model, goodput.interval_s) : 1;
  LostTime& lost = goodput.lost;
  split(model, share, goodput.interval_s, lost);
  // A job that waits for a host is neither stopped by plan nor corrupted meanwhile.
  double alive = 1 - model.waiting, running = alive * std::max(0.0, 1 - model.planned - model.corruption);
  for (double* part : {&lost.checkpoint, &lost.rework, &lost.restart}) *part *= running;
  double aside = alive - running, planned = model.planned + model.corruption > 0
                                                ? model.planned / (model.planned + model.corruption)
                                                : 0;
  lost.planned = aside * planned, lost.corruption = aside - lost.planned, lost.waiting = model.waiting;
  goodput.share = share * running / model.slowdown;
  lost.stragglers = share * running - goodput.share;
  goodput.interruptions_per_day = fails ? 86400 / model.mean_time_between_s : 0;
  goodput.spare_hosts = model.spare_hosts;
  return goodput;
}

FailureModel failure_model(const GpuCluster& cluster, double devices, double state_bytes,
                           const FailurePolicy& policy) {
  const Reliability& reliability = cluster.reliability;
  double hosts = std::ceil(devices / static_cast<double>(reliability.devices_per_host));
  double per_day = hosts * reliability.failures_per_1000_node_days / 1000;
  FailureModel model;
  model.mean_time_between_s = per_day > 0 ? 86400 / per_day : 0;
  model.checkpoint_s = checkpoint_s(cluster, state_bytes, policy);
  model.restart_s = policy.restart_s, model.interval_s = policy.interval_s;
  model.planned = std::min(1.0, per_day * planned_per_unexpected() * policy.planned_s / 86400);
  double silent = share_of_causes([](const FailureCause& cause) { return cause.silent; });
  model.corruption = std::min(1.0, per_day * silent * policy.corruption_detection_s / 86400);
  double hardware = share_of_causes([](const FailureCause& cause) { return cause.hardware; });
  double in_repair = per_day * hardware * policy.repair_s / 86400;
  model.spare_hosts =
      policy.spare_hosts >= 0 ? policy.spare_hosts : spares_needed(in_repair, policy.spare_confidence);
  model.waiting = share_without_spare(in_repair, model.spare_hosts);
  model.slowdown = 1 + policy.straggler_sigma * std::max(0.0, expected_maximum(hosts));
  return model;
}

double share_without_spare(double mean, double spares) {
  if (mean <= 0) return 0;
  // Terms far below the mean vanish; they are summed in logarithms so that large means do not underflow.
  double within = 0, last = std::floor(spares);
  double first = std::max(0.0, std::floor(mean - 12 * std::sqrt(mean) - 12));
  for (double k = first; k <= last; ++k) within += std::exp(k * std::log(mean) - mean - std::lgamma(k + 1));
  return std::clamp(1 - within, 0.0, 1.0);
}

double spares_needed(double mean, double confidence) {
  if (mean <= 0) return 0;
  double low = -1, high = std::ceil(mean + 12 * std::sqrt(mean) + 12);
  while (high - low > 1) {
    double middle = std::floor((low + high) / 2);
    (share_without_spare(mean, middle) <= 1 - confidence ? high : low) = middle;
  }
  return high;
}

double expected_maximum(double count) {
  if (count <= 1) return 0;
  double above = 1 - (count - 0.375) / (count + 0.25);  // probability beyond the quantile, by Blom
  double low = 0, high = 10;
  for (int step = 0; step < 60; ++step) {
    double middle = (low + high) / 2;
    (0.5 * std::erfc(middle / std::sqrt(2.0)) > above ? low : high) = middle;
  }
  return (low + high) / 2;
}

}  // namespace tessera::plan
