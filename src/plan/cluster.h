// What a layout runs on: how fast one device computes, how fast devices talk, how many processes share a core.
// Every figure carries its provenance, so that a prediction can say what it stands on.
//
// Two kinds of hosts, one description. A GPU cluster gives each process its own device (`cores` is 0), rates
// come from a spec sheet and an efficiency. A CPU host is measured by `tessera calibrate`: grids of products,
// seconds per element of each operation, a table of collectives, and the speed left to a process when others
// run beside it.
//
// Units: seconds, bytes, bytes per second, FLOP per second (2 per multiply-add). Rates and times of a CPU host
// are those of one process that has a core to itself; sharing is applied by the pipeline recurrence.
// Threads: values; all functions are const and reentrant.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/result.h"
#include "layout/layout.h"

namespace tessera::plan {

enum class Product { nt, nn, tn };  // forward, input gradient, weight gradient: as in kernels.h

// Rates of products over a full grid of shapes; between points the logarithm of the rate is linear in the
// logarithms of m, n, k, outside it stays that of the border.
struct GemmGrid {
  Product product = Product::nt;
  Precision precision = Precision::float32;
  std::vector<double> m, n, k;      // ascending
  std::vector<double> flops_per_s;  // [m][n][k]
  double rate(double m_, double n_, double k_) const;
};

// Operations that are bound by memory or by one pass over elements.
enum class Op {
  norm,           // per element of x
  norm_backward,  //
  rope,           // per element of q and k
  silu,           // per element of the gated width
  silu_backward,  //
  add,            // per element: residual sums, partial sums of products
  accumulate,     // per float32 element: sums of partial results and of gradients
  move_rows,      // per element: rows copied to or from experts, embedding look-up
  pack,           // per element of a weight laid out for products
  combine,        // per element of expert rows: weighted sum over the slots of a token
  route,          // per token and expert
  loss,           // per logit: maximum, sum of exponentials, gradient
  squares,        // per gradient element of a shard: the norm, summed exactly
  optimizer,      // per element of an optimizer shard
};
inline constexpr int kOps = 14;
const char* to_string(Op op);

enum class Collective { all_gather, all_to_all, send };
const char* to_string(Collective collective);

// One measured collective. `bytes`: of the whole buffer of one rank (all-gather: the result; all-to-all: all
// that it sends, its own part included; send: the message).
struct LinkPoint {
  Collective collective = Collective::send;
  int64_t ranks = 2;
  double bytes = 0;
  double seconds = 0;  // with a core per rank
};

// Measured FLOP/s of causal attention at one head size, counted over the visible half; backward counts 2.5
// times the forward's.
struct AttentionPoint {
  Precision precision = Precision::float32;
  double head_dim = 64;
  double forward = 0, backward = 0;
};

// Devices that reach each other over the same links: a node, an NVLink domain, the whole network. Tiers go from
// the inside out; the last holds every device.
struct Tier {
  std::string name;
  int64_t devices = 1;
  double latency_s = 0;
  double bytes_per_s = 0;  // of one device, one direction
};

struct Cluster {
  std::string name;
  int64_t cores = 0;          // shared by all processes of one host; 0: each process has a device of its own
  double memory_bytes = 0;    // of one device; of the whole host when cores > 0
  double reserved_bytes = 0;  // of a process before the first tensor: runtime, libraries, buffers of links
  double memory_bytes_per_s = 0;                         // of one device or process
  double peak_float32 = 0, peak_bf16 = 0, peak_fp8 = 0;  // FLOP/s of dense products, 0: unknown
  double gemm_efficiency = 1;         // of the peak that large products reach; used where no grid is given
  double memory_efficiency = 1;       // of the bandwidth that one-pass operations reach
  double attention_efficiency = 0.5;  // of the peak, where no rate was measured
  double kernel_overhead_s = 0;       // host time of one kernel call that computation does not hide
  double action_overhead_s = 0;       // host time of one action of the schedule
  std::vector<GemmGrid> gemm;
  std::vector<AttentionPoint> attention;     // measured; else attention_efficiency of the peak
  std::map<Op, double> op_float32, op_bf16;  // measured seconds per element
  std::vector<LinkPoint> links;              // measured; else the tiers are used
  std::vector<Tier> tiers;
  std::vector<int64_t> running = {1};             // processes that compute at once on one host
  std::vector<double> speed = {1};                // of each of them, relative to one alone
  std::vector<int64_t> threads = {1};             // kernel threads of one process
  std::vector<double> thread_speed = {1};         // relative to one thread
  double relative_error = 0.3;                    // half width of the 90 % interval of a step time
  double price_usd_per_hour = 0, watts = 0;       // of one device, 0: unknown
  std::map<std::string, std::string> provenance;  // key of the file -> where the figure comes from

  bool shares_cores() const { return cores > 0; }
  double peak(Precision precision) const { return precision == Precision::bf16 ? peak_bf16 : peak_float32; }

  // Seconds of one product out[m,n] with inner length k, alone on its core or device.
  double product_s(Product product, Precision precision, double m, double n, double k) const;
  double op_s(Op op, Precision precision, double elements) const;
  // Seconds of causal attention: `flops` are those actually needed (half of the square).
  double attention_s(Precision precision, double head_dim, double flops, bool backward) const;
  // Speed of each of `processes` that compute at once, relative to one alone: at most 1.
  double speed_of(double processes) const;
  double speed_of_threads(int64_t count) const;
  // The innermost tier that holds ranks `stride` apart, `ranks` of them.
  const Tier& tier_of(int64_t ranks, int64_t stride) const;
};

// Seconds of one collective over `ranks` ranks that lie `stride` devices apart; bytes as in LinkPoint. Measured
// points are interpolated in size and scaled by the share that leaves the rank; else the ring formula of the
// tier: (n-1) * latency + (n-1)/n * bytes / bandwidth, for send latency + bytes / bandwidth.
double collective_s(const Cluster& cluster, Collective collective, int64_t ranks, int64_t stride, double bytes);

// A cluster file is TOML, see docs/plan.md. Errors name the file, the key and the nearest known key.
Result<Cluster> parse_cluster(std::string_view toml, const std::string& file_name);
std::string to_toml(const Cluster& cluster);
// A name of the catalogue, or the path of a cluster file.
Result<Cluster> load_cluster(const std::string& name_or_path);
std::vector<std::string> cluster_names();
Result<Cluster> cluster_by_name(const std::string& name);

}  // namespace tessera::plan
