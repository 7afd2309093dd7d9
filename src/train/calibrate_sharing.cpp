#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <thread>

#include "kernels/kernels.h"
#include "train/calibrate_parts.h"
#include "train/timing.h"

namespace tessera::train {
namespace {

using at::Tensor;

// The pieces that a step of a small model gives to kernel threads: short products, as of one expert, a gate, a
// sum.
struct StepWork {
  ColdOperands operands{Precision::float32};
  Tensor gate_up = at::randn({512, 512}), inner = at::randn({512, 256});
  void product(int64_t m, int64_t n, int64_t k) {
    Tensor a = operands.take({m, k}), b = operands.take({n, k}), out = at::empty({m, n});
    kernels::gemm_nt(a, b, out);
  }
  void run() {
    for (int i = 0; i < 4; ++i) product(64, 256, 256);
    product(256, 256, 256);
    kernels::silu_mul(gate_up, inner);
    Tensor sum = operands.take({1 << 17}), part = operands.take({1 << 17});
    kernels::add_into(sum, part);
  }
};

// Calls per second of each of `workers` threads that run at once.
double rate_of_each(int64_t workers, double seconds) {
  std::vector<std::thread> threads;
  std::vector<double> rates(static_cast<size_t>(workers), 0);
  for (int64_t i = 0; i < workers; ++i)
    threads.emplace_back([&, i] {
      StepWork work;
      work.run();
      int64_t calls = 0;
      Clock::time_point start = Clock::now();
      while (seconds_since(start) < seconds) work.run(), ++calls;
      rates[static_cast<size_t>(i)] = static_cast<double>(calls) / seconds_since(start);
    });
  for (std::thread& thread : threads) thread.join();
  double sum = 0;
  for (double rate : rates) sum += rate;
  return sum / static_cast<double>(workers);
}

}  // namespace

void measure_sharing(plan::Cluster& cluster, double budget_s) {
  cluster.running = {1};
  for (int64_t count = 2; count <= 2 * cluster.cores && count <= 64; count *= 2)
    cluster.running.push_back(count);
  if (cluster.cores == 1) cluster.running = {1, 2};
  double each = budget_s / static_cast<double>(cluster.running.size());
  double alone = rate_of_each(1, each);
  cluster.speed = {1};
  for (size_t i = 1; i < cluster.running.size(); ++i) {
    // Workers that start late or end early find less company than they should; no share is above the cores'
    // own.
    double fair = static_cast<double>(cluster.cores) / static_cast<double>(cluster.running[i]);
    cluster.speed.push_back(std::min({1.0, fair, rate_of_each(cluster.running[i], each) / alone}));
  }
}

void measure_threads(plan::Cluster& cluster, double budget_s) {
  cluster.threads = {1};
  cluster.thread_speed = {1};
  StepWork work;
  double alone = median_seconds(budget_s / 2, [&] { work.run(); });
  for (int64_t count = 2; count <= cluster.cores && count <= 64; count *= 2) {
    kernels::set_kernel_threads(count);
    double together = median_seconds(budget_s / 2, [&] { work.run(); });
    cluster.threads.push_back(count);
    cluster.thread_speed.push_back(std::max(1.0, alone / together));
  }
  kernels::set_kernel_threads(1);
}

}  // namespace tessera::train
