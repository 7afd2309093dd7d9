// Products in few bits against what the machine can give: decoding against the bandwidth of reads, prefill
// against the peak of dot products of bytes.
//
//   cmake --build --preset release --target bench_quant && build/release/bench/quant [--threads 2] [--json F]
//
// Weights are larger than the caches and are visited in turn. Each figure is the best of several runs, and the
// bandwidth is measured again beside each.
#include "kernels/quant.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "core/file.h"
#include "kernels/kernels.h"
#include "kernels/quant_table.h"
#include "kernels/threads.h"

namespace {

using at::Tensor;
using namespace tessera;
using nlohmann::json;

constexpr int64_t kHidden = 2048, kWide = 5632, kWeights = 24;
constexpr int kRuns = 7;

template <class F>
double best_seconds(const F& body) {
  double best = 1e9;
  for (int run = 0; run < kRuns; ++run) {
    auto start = Clock::now();
    body();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

// GB/s of adding up 512 MB with all threads.
double read_bandwidth() {
  static std::vector<uint64_t> memory(size_t{64} << 20, 1);
  volatile uint64_t kept = 0;
  const double seconds = best_seconds([&] {
    kernels::parallel_ranges(std::ssize(memory), 1 << 16, [&](int64_t begin, int64_t end) {
      uint64_t sums[8] = {};
      for (int64_t i = begin; i < end; i += 8)
        for (int64_t j = 0; j < 8; ++j) sums[j] += memory[static_cast<size_t>(i + j)];
      for (uint64_t sum : sums) kept = kept + sum;
    });
  });
  return static_cast<double>(memory.size() * 8) / seconds * 1e-9;
}

std::vector<kernels::QuantWeight> make_weights(kernels::QuantKind kind) {
  std::vector<kernels::QuantWeight> weights;
  for (int64_t i = 0; i < kWeights; ++i)
    weights.push_back(kernels::quantize(kind, at::randn({kWide, kHidden})));
  return weights;
}

// Seconds for `rows` rows against one weight, every weight in turn.
double seconds_of_product(const std::vector<kernels::QuantWeight>& weights, int64_t rows) {
  const Tensor a = at::randn({rows, kHidden});
  Tensor out = at::empty({rows, kWide});
  return best_seconds([&] {
           for (const auto& weight : weights) kernels::gemm_quant(a, {&weight, 1}, out);
         }) /
         static_cast<double>(weights.size());
}

json row(const std::string& name, const char* unit, double ours, double peer, const char* peer_name) {
  fmt::print("{:32} {:9.1f} {:8} {} {:.1f}: {:.2f}\n", name, ours, unit, peer_name, peer, ours / peer);
  return {{"name", name},
          {"unit", unit},
          {"ours", ours},
          {"peer", peer},
          {"peer_name", peer_name},
          {"ratio", ours / peer},
          {"higher_is_better", true},
          {"threads", kernels::kernel_threads()},
          {"repeats", kRuns}};
}

// GOP/s of one tile whose operands stay in the first cache: what the inner loop can give.
double peak_giga_operations() {
  constexpr int64_t rows = 12, groups = 16, times = 20000;
  const int64_t threads = kernels::kernel_threads();
  std::vector<uint8_t> weight(groups * 544, 1);
  std::vector<int8_t> a(rows * groups * 32, 1);
  std::vector<float> scale(rows * groups, 1);
  std::vector<int32_t> sum(rows * groups, 1);
  const double seconds = best_seconds([&] {
    kernels::parallel(threads, [&](int64_t) {
      std::array<float, rows * 16> out;
      for (int64_t n = 0; n < times; ++n)
        kernels::quant_table().tile_int8(
            {weight.data(), groups, a.data(), scale.data(), sum.data(), rows, groups * 32, groups, out.data()});
    });
  });
  return 2e-9 * static_cast<double>(threads * rows * 16 * groups * 32 * times) / seconds;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Products in few bits against the bandwidth of reads");
  int64_t threads = std::max(1u, std::thread::hardware_concurrency());
  std::string file;
  app.add_option("--threads", threads, "Threads of the kernels")->capture_default_str();
  app.add_option("--json", file, "Write the result here");
  CLI11_PARSE(app, argc, argv);
  kernels::set_kernel_threads(threads);
  json rows = json::array();
  const double peak = peak_giga_operations();
  fmt::print(
      "{} threads, {}, load average {:.1f}; the inner loop reaches {:.0f} GOP/s\n", threads,
      kernels::quant_isa(),
      [] {
        double load = 0;
        return getloadavg(&load, 1), load;
      }(),
      peak);
  for (auto kind : {kernels::QuantKind::int8, kernels::QuantKind::int4, kernels::QuantKind::int4_offset}) {
    const auto weights = make_weights(kind);
    const double bytes = static_cast<double>(kernels::QuantShape{kind, kWide, kHidden, 1}.bytes());
    for (int64_t m : {1, 4, 8, 16, 64, 512}) {
      const double seconds = seconds_of_product(weights, m);
      const std::string name = fmt::format("{} {} rows", to_string(kind), m);
      if (m <= 16) rows.push_back(row(name, "GB/s", bytes / seconds * 1e-9, read_bandwidth(), "reads"));
      const double operations = 2e-9 * static_cast<double>(m * kWide * kHidden) / seconds;
      if (m > 1) rows.push_back(row(name, "GOP/s", operations, peak, "in cache"));
    }
  }
  double load = 0;
  getloadavg(&load, 1);
  const json result = {
      {"machine", fmt::format("{} cores, {}", std::thread::hardware_concurrency(), kernels::quant_isa())},
      {"load_average", load},
      {"rows", rows}};
  if (!file.empty() && !write_file_atomically(file, result.dump(1) + "\n").ok()) return 1;
}
