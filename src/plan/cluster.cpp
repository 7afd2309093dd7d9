#include "plan/cluster.h"

#include <algorithm>
#include <cmath>

namespace tessera::plan {
namespace {

// Place of x between two neighbours of an ascending axis, in logarithms, held at the borders.
struct Place {
  size_t low = 0, high = 0;
  double weight = 0;  // of high
};
Place place_on(const std::vector<double>& axis, double x) {
  if (x <= axis.front()) return {0, 0, 0};
  if (x >= axis.back()) return {axis.size() - 1, axis.size() - 1, 0};
  size_t high = static_cast<size_t>(std::upper_bound(axis.begin(), axis.end(), x) - axis.begin());
  double low_log = std::log(axis[high - 1]);
  return {high - 1, high, (std::log(x) - low_log) / (std::log(axis[high]) - low_log)};
}

// Bytes read and written per element, for devices whose operations were not measured: accesses in the working
// precision and in float32.
struct Accesses {
  double working, float32;
};
Accesses accesses_of(Op op) {
  switch (op) {
    case Op::norm:
      return {2, 0};
    case Op::norm_backward:
      return {3, 0};
    case Op::rope:
      return {2, 0};
    case Op::silu:
      return {3, 0};
    case Op::silu_backward:
      return {5, 0};
    case Op::add:
      return {3, 0};
    case Op::accumulate:
      return {0, 3};
    case Op::move_rows:
    case Op::pack:
      return {2, 0};
    case Op::combine:
      return {1.5, 0};
    case Op::route:
      return {0, 4};
    case Op::loss:
      return {0, 4};
    case Op::squares:
      return {0, 1};
    case Op::optimizer:
      return {1, 7};
  }
  return {2, 0};
}

// A table of x -> y, linear between points; beyond the last point y falls as last_x / x.
double share(const std::vector<int64_t>& x, const std::vector<double>& y, double at) {
  if (at <= static_cast<double>(x.front())) return y.front();
  for (size_t i = 1; i < x.size(); ++i) {
    double low = static_cast<double>(x[i - 1]), high = static_cast<double>(x[i]);
    if (at <= high) return y[i - 1] + (y[i] - y[i - 1]) * (at - low) / (high - low);
  }
  return y.back() * static_cast<double>(x.back()) / at;
}

double log_interpolate(const std::vector<const LinkPoint*>& points, double bytes) {
  if (bytes <= points.front()->bytes) return points.front()->seconds;
  for (size_t i = 1; i < points.size(); ++i) {
    const LinkPoint &low = *points[i - 1], &high = *points[i];
    if (bytes > high.bytes) continue;
    double weight = std::log(bytes / low.bytes) / std::log(high.bytes / low.bytes);
    return std::exp(std::log(low.seconds) * (1 - weight) + std::log(high.seconds) * weight);
  }
  return points.back()->seconds * bytes / points.back()->bytes;
}

// Measured points of this collective with the number of ranks nearest to `ranks`, ascending in bytes.
std::vector<const LinkPoint*> nearest_points(const Cluster& cluster, Collective collective, int64_t ranks) {
  int64_t best = 0;
  for (const LinkPoint& point : cluster.links)
    if (point.collective == collective && (best == 0 || std::abs(point.ranks - ranks) < std::abs(best - ranks)))
      best = point.ranks;
  std::vector<const LinkPoint*> points;
  for (const LinkPoint& point : cluster.links)
    if (point.collective == collective && point.ranks == best) points.push_back(&point);
  std::sort(points.begin(), points.end(), [](auto* a, auto* b) { return a->bytes < b->bytes; });
  return points;
}

}  // namespace

double GemmGrid::rate(double m_, double n_, double k_) const {
  Place pm = place_on(m, m_), pn = place_on(n, n_), pk = place_on(k, k_);
  double log_rate = 0;
  for (int corner = 0; corner < 8; ++corner) {
    size_t i = corner & 1 ? pm.high : pm.low, j = corner & 2 ? pn.high : pn.low,
           l = corner & 4 ? pk.high : pk.low;
    double weight = (corner & 1 ? pm.weight : 1 - pm.weight) * (corner & 2 ? pn.weight : 1 - pn.weight) *
                    (corner & 4 ? pk.weight : 1 - pk.weight);
    if (weight > 0) log_rate += weight * std::log(flops_per_s[(i * n.size() + j) * k.size() + l]);
  }
  return std::exp(log_rate);
}

const char* to_string(Op op) {
  static const char* names[kOps] = {"norm",  "norm_backward", "rope",      "silu",     "silu_backward",
                                    "add",   "accumulate",    "move_rows", "pack",     "combine",
                                    "route", "loss",          "squares",   "optimizer"};
  return names[static_cast<int>(op)];
}

const char* to_string(Collective collective) {
  static const char* names[] = {"all_gather", "all_to_all", "send"};
  return names[static_cast<int>(collective)];
}

double Cluster::product_s(Product product, Precision precision, double m, double n, double k) const {
  double flops = 2 * m * n * k;
  if (flops <= 0) return 0;
  for (const GemmGrid& grid : gemm)
    if (grid.product == product && grid.precision == precision)
      return flops / grid.rate(m, n, k) + kernel_overhead_s;
  double element = precision == Precision::bf16 ? 2 : 4;
  double bytes = (m * k + k * n + m * n) * element;
  double compute = flops / (peak(precision) * gemm_efficiency);
  return std::max(compute, bytes / (memory_bytes_per_s * memory_efficiency)) + kernel_overhead_s;
}

double Cluster::op_s(Op op, Precision precision, double elements) const {
  if (elements <= 0) return 0;
  const auto& measured = precision == Precision::bf16 ? op_bf16 : op_float32;
  if (auto found = measured.find(op); found != measured.end())
    return elements * found->second + kernel_overhead_s;
  Accesses accesses = accesses_of(op);
  double bytes = accesses.working * (precision == Precision::bf16 ? 2 : 4) + accesses.float32 * 4;
  return elements * bytes / (memory_bytes_per_s * memory_efficiency) + kernel_overhead_s;
}

double Cluster::attention_s(Precision precision, double head_dim, double flops, bool backward) const {
  const AttentionPoint* nearest = nullptr;
  auto distance = [&](const AttentionPoint& point) { return std::abs(std::log(point.head_dim / head_dim)); };
  for (const AttentionPoint& point : attention)
    if (point.precision == precision && (!nearest || distance(point) < distance(*nearest))) nearest = &point;
  double rate = peak(precision) * attention_efficiency;
  if (nearest) rate = backward ? nearest->backward : nearest->forward;
  return flops / rate + kernel_overhead_s;
}

double Cluster::speed_of(double processes) const {
  return shares_cores() ? share(running, speed, processes) : 1;
}

double Cluster::speed_of_threads(int64_t count) const {
  if (count <= threads.back()) return share(threads, thread_speed, static_cast<double>(count));
  return thread_speed.back();
}

const Tier& Cluster::tier_of(int64_t ranks, int64_t stride) const {
  for (const Tier& tier : tiers)
    if (ranks * stride <= tier.devices) return tier;
  return tiers.back();
}

double collective_s(const Cluster& cluster, Collective collective, int64_t ranks, int64_t stride,
                    double bytes) {
  if (ranks <= 1 || bytes <= 0) return 0;
  double n = static_cast<double>(ranks);
  double outside = collective == Collective::send ? 1 : (n - 1) / n;
  double hops = collective == Collective::send ? 1 : n - 1;
  auto points = nearest_points(cluster, collective, ranks);
  if (!points.empty()) {
    double m = static_cast<double>(points.front()->ranks);
    double measured_outside = collective == Collective::send ? 1 : (m - 1) / m;
    return log_interpolate(points, bytes) * outside / measured_outside;
  }
  const Tier& tier = cluster.tier_of(ranks, stride);
  return hops * tier.latency_s + outside * bytes / tier.bytes_per_s;
}

}  // namespace tessera::plan
