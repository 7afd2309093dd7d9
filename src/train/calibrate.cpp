#include "train/calibrate.h"

#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "kernels/kernels.h"
#include "train/calibrate_parts.h"
#include "train/timing.h"

namespace tessera::train {
namespace {

using plan::Cluster;
using plan::Op;
using plan::Product;

int64_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

double resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  long total = 0, resident = 0;
  if (file) {
    if (std::fscanf(file, "%ld %ld", &total, &resident) != 2) resident = 0;
    std::fclose(file);
  }
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

void note_machine(Cluster& cluster) {
  cluster.name = "here";
  cluster.cores = usable_cores();
  cluster.memory_bytes =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  cluster.reserved_bytes = resident_bytes();
  cluster.gemm_efficiency = cluster.memory_efficiency = 1;
  cluster.relative_error = 0.15;
  cluster.action_overhead_s = 5e-5;
}

void note_peaks(Cluster& cluster) {
  for (const plan::GemmGrid& grid : cluster.gemm) {
    double& peak = grid.precision == Precision::bf16 ? cluster.peak_bf16 : cluster.peak_float32;
    peak = std::max(peak, *std::max_element(grid.flops_per_s.begin(), grid.flops_per_s.end()));
  }
  cluster.memory_bytes_per_s = 12 / cluster.op_float32.at(Op::accumulate);  // two reads, one write
}

void note_provenance(Cluster& cluster, double load) {
  std::string here = fmt::format("measured here: kernels of {}, one thread, load average {:.1f} at the start",
                                 kernels::isa(), load);
  for (const char* key : {"gemm", "attention", "op_float32", "op_bf16", "peak_float32", "peak_bf16",
                          "kernel_overhead_s", "memory_bytes_per_s"})
    cluster.provenance[key] = here;
  cluster.provenance["link"] = "measured here: threads as ranks over the transport between processes";
  cluster.provenance["speed"] = "measured here: threads that compute at once on data of their own";
  cluster.provenance["thread_speed"] = "measured here: pieces of a step on several kernel threads";
  cluster.provenance["memory_bytes"] = "operating system";
  cluster.provenance["reserved_bytes"] = "measured here: resident bytes of this process at its start";
  cluster.provenance["action_overhead_s"] = "assumed";
  cluster.provenance["relative_error"] = "goal of predicted against measured step times on this kind of host";
}

Result<Cluster> measure(const CalibrationOptions& options) {
  Cluster cluster;
  double load = 0;
  getloadavg(&load, 1);
  note_machine(cluster);
  double unit = options.seconds / 100;
  double done = 0;
  auto next = [&](const std::string& what, double share) {
    options.progress(what, done / 100);
    done += share;
    return share * unit;
  };
  cluster.kernel_overhead_s = kernel_overhead(next("kernel calls", 1));
  for (Precision precision : {Precision::float32, Precision::bf16}) {
    std::string name = to_string(precision);
    ColdOperands operands(precision);
    for (Product product : {Product::nt, Product::nn, Product::tn})
      cluster.gemm.push_back(
          measure_grid(product, operands, options.largest_product, next("products in " + name, 9)));
    for (int64_t head_dim : {16, 32, 64, 128})
      cluster.attention.push_back(measure_attention(operands, head_dim, next("attention in " + name, 1.5)));
    auto& ops = precision == Precision::bf16 ? cluster.op_bf16 : cluster.op_float32;
    ops = measure_ops(operands, cluster.kernel_overhead_s, next("one-pass operations in " + name, 6));
  }
  measure_threads(cluster, next("kernel threads", 3));
  measure_sharing(cluster, next("processes that share cores", 8));
  for (int64_t ranks : {2, 4})
    TESSERA_RETURN_IF_ERROR(measure_links(cluster, ranks, next(fmt::format("links, {} ranks", ranks), 5)));
  note_peaks(cluster);
  note_provenance(cluster, load);
  options.progress("done", 1);
  return cluster;
}

}  // namespace

Result<Cluster> calibrate(const CalibrationOptions& options) try {
  int64_t threads = kernels::kernel_threads();
  kernels::set_kernel_threads(1);
  auto result = measure(options);
  kernels::set_kernel_threads(threads);
  return result;
} catch (const std::exception& error) {  // libtorch
  return make_error(ErrorCode::internal, "calibration: {}", error.what());
}

}  // namespace tessera::train
