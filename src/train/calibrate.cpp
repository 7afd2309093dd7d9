#include "train/calibrate.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "comm/group.h"
#include "core/exact_sum.h"
#include "kernels/kernels.h"
#include "train/timing.h"

namespace tessera::train {
namespace {

using at::Tensor;
using plan::Cluster;
using plan::Op;
using plan::Product;

at::ScalarType dtype_of(Precision precision) {
  return precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
}
Tensor random(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::randn(shape, at::TensorOptions().dtype(at::kFloat)).to(dtype);
}
Tensor fresh(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::empty(shape, at::TensorOptions().dtype(dtype));
}

// ---- products ----

// One product as the trainer runs it: forward in the working precision, gradients in float32.
double product_seconds(Product product, Precision precision, int64_t m, int64_t n, int64_t k, double budget_s) {
  at::ScalarType dtype = dtype_of(precision);
  Tensor a = product == Product::tn ? random({k, m}, dtype) : random({m, k}, dtype);
  Tensor b = product == Product::nt ? random({n, k}, dtype) : random({k, n}, dtype);
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({m, n}, product == Product::nt ? dtype : at::kFloat);
    if (product == Product::nt) kernels::gemm_nt(a, b, out);
    if (product == Product::nn) kernels::gemm_nn(a, b, out);
    if (product == Product::tn) kernels::gemm_tn(a, b, out);
  });
}

plan::GemmGrid measure_grid(Product product, Precision precision, double largest, double budget_s) {
  plan::GemmGrid grid{product, precision, {16, 64, 256, 1024}, {16, 64, 256, 1024, 4096}, {16, 64, 256, 1024},
                      {}};
  double each = budget_s / static_cast<double>(grid.m.size() * grid.n.size() * grid.k.size());
  size_t row = grid.k.size();
  for (double m : grid.m)
    for (double n : grid.n)
      for (double k : grid.k) {
        double flops = 2 * m * n * k;
        if (flops > largest) {
          size_t at = grid.flops_per_s.size();
          bool smaller_k = k > grid.k.front();
          grid.flops_per_s.push_back(grid.flops_per_s[smaller_k ? at - 1 : at - row]);
          continue;
        }
        double seconds = product_seconds(product, precision, static_cast<int64_t>(m), static_cast<int64_t>(n),
                                         static_cast<int64_t>(k), each);
        grid.flops_per_s.push_back(flops / seconds);
      }
  return grid;
}

// ---- attention ----

plan::AttentionPoint measure_attention(Precision precision, int64_t head_dim, double budget_s) {
  constexpr int64_t kTokens = 256, kDocument = 128, kHeads = 8, kKvHeads = 4;
  at::ScalarType dtype = dtype_of(precision);
  Tensor q = random({kTokens, kHeads, head_dim}, dtype), k = random({kTokens, kKvHeads, head_dim}, dtype),
         v = random({kTokens, kKvHeads, head_dim}, dtype), dout = random({kTokens, kHeads, head_dim}, dtype);
  Tensor start = at::zeros({kTokens}, at::TensorOptions().dtype(at::kInt));
  for (int64_t t = 0; t < kTokens; ++t)
    start.data_ptr<int32_t>()[t] = static_cast<int32_t>(t / kDocument * kDocument);
  Tensor out = fresh({kTokens, kHeads, head_dim}, dtype), lse = fresh({kTokens, kHeads}, at::kFloat);
  double flops = 4.0 * kTokens * (kDocument + 1) / 2 * kHeads * static_cast<double>(head_dim);
  double forward = median_seconds(budget_s / 2, [&] {
    Tensor result = fresh({kTokens, kHeads, head_dim}, dtype);
    kernels::attention(q, k, v, start, 0.2, result, lse);
    out = result;
  });
  double backward = median_seconds(budget_s / 2, [&] {
    Tensor dq = fresh(q.sizes(), dtype), dk = fresh(k.sizes(), dtype), dv = fresh(v.sizes(), dtype);
    kernels::attention_backward(dout, q, k, v, out, lse, start, 0.2, dq, dk, dv);
  });
  return {precision, static_cast<double>(head_dim), flops / forward, 2.5 * flops / backward};
}

// ---- one-pass operations ----

constexpr int64_t kRows = 512, kWidth = 256;

double norm_seconds(at::ScalarType dtype, bool backward, double budget_s) {
  Tensor x = random({kRows, kWidth}, dtype), dy = random({kRows, kWidth}, dtype),
         weight = random({kWidth}, dtype);
  Tensor rstd = fresh({kRows}, at::kFloat), dweight = at::zeros({kWidth});
  Tensor y = fresh({kRows, kWidth}, dtype);
  kernels::rms_norm(x, weight, 1e-6, y, rstd);
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({kRows, kWidth}, dtype);
    if (backward)
      kernels::rms_norm_backward(dy, x, weight, rstd, out, dweight);
    else
      kernels::rms_norm(x, weight, 1e-6, out, rstd);
  });
}

double rope_seconds(at::ScalarType dtype, double budget_s) {
  std::vector<float> frequencies(16, 0.5f);
  kernels::RopeTable table = kernels::rope_table(frequencies, kRows);
  Tensor x = random({kRows, kWidth / 32, 32}, dtype);
  Tensor positions = at::zeros({kRows}, at::TensorOptions().dtype(at::kLong));
  return median_seconds(budget_s, [&] { kernels::rope(x, positions, table); });
}

double silu_seconds(at::ScalarType dtype, bool backward, double budget_s) {
  Tensor gate_up = random({kRows, 2 * kWidth}, dtype), dout = random({kRows, kWidth}, dtype);
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({kRows, backward ? 2 * kWidth : kWidth}, dtype);
    if (backward)
      kernels::silu_mul_backward(dout, gate_up, out);
    else
      kernels::silu_mul(gate_up, out);
  });
}

double add_seconds(at::ScalarType dtype, double budget_s) {
  Tensor a = random({kRows, kWidth}, dtype), b = random({kRows, kWidth}, at::kFloat);
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({kRows, kWidth}, dtype);
    kernels::add_rounded(a, b, out);
  });
}

double accumulate_seconds(double budget_s) {
  Tensor a = random({kRows, kWidth}, at::kFloat), b = random({kRows, kWidth}, at::kFloat);
  return median_seconds(budget_s, [&] { kernels::add_into(a, b); });
}

double move_rows_seconds(at::ScalarType dtype, double budget_s) {
  Tensor x = random({kRows, kWidth}, dtype);
  Tensor index = at::randint(kRows, {kRows}, at::TensorOptions().dtype(at::kLong));
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({kRows, kWidth}, dtype);
    kernels::gather_rows(x, index, out);
  });
}

double combine_seconds(at::ScalarType dtype, double budget_s) {
  Tensor rows = random({kRows, kWidth}, dtype), weight = random({kRows / 2, 2}, at::kFloat);
  Tensor position = at::randint(kRows, {kRows / 2, 2}, at::TensorOptions().dtype(at::kLong));
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({kRows / 2, kWidth}, at::kFloat);
    kernels::combine(rows, position, weight, out);
  });
}

constexpr int64_t kExperts = 8, kVocab = 4096, kLossRows = 64;

double route_seconds(double budget_s) {
  Tensor logits = random({kRows, kExperts}, at::kFloat);
  return median_seconds(budget_s, [&] {
    Tensor probabilities = fresh({kRows, kExperts}, at::kFloat), expert = fresh({kRows, 2}, at::kInt),
           weight = fresh({kRows, 2}, at::kFloat);
    kernels::route(logits, 2, true, probabilities, expert, weight);
  });
}

double loss_seconds(double budget_s) {
  Tensor logits = random({kLossRows, kVocab}, at::kFloat);
  Tensor targets = at::zeros({kLossRows}, at::TensorOptions().dtype(at::kLong)), scale = at::zeros({kLossRows});
  return median_seconds(budget_s, [&] {
    Tensor max = fresh({kLossRows}, at::kFloat), sum = fresh({kLossRows}, at::kFloat);
    kernels::row_max(logits, max);
    kernels::row_sum_exp(logits, max, sum);
    kernels::cross_entropy_gradient(logits, max, sum, targets, 0, scale);
  });
}

double squares_seconds(double budget_s) {
  Tensor values = random({kRows * kWidth}, at::kFloat);
  ExactSum sum;
  return median_seconds(budget_s, [&] { kernels::sum_of_squares(values, sum.limbs()); });
}

double optimizer_seconds(double budget_s) {
  int64_t n = kRows * kWidth;
  Tensor gradient = random({n}, at::kFloat), master = random({n}, at::kFloat), m = at::zeros({n}),
         v = at::zeros({n});
  Tensor none;
  kernels::AdamW options{.learning_rate = 1e-3};
  return median_seconds(budget_s, [&] { kernels::adamw(options, 1, gradient, master, m, v, none); });
}

// Seconds per element of every operation, the cost of a call itself taken off.
std::map<Op, double> measure_ops(Precision precision, double overhead_s, double budget_s) {
  at::ScalarType dtype = dtype_of(precision);
  double each = budget_s / plan::kOps, elements = kRows * kWidth;
  std::map<Op, double> seconds = {
      {Op::norm, norm_seconds(dtype, false, each) / elements},
      {Op::norm_backward, norm_seconds(dtype, true, each) / elements},
      {Op::rope, rope_seconds(dtype, each) / elements},
      {Op::silu, silu_seconds(dtype, false, each) / elements},
      {Op::silu_backward, silu_seconds(dtype, true, each) / elements},
      {Op::add, add_seconds(dtype, each) / elements},
      {Op::accumulate, accumulate_seconds(each) / elements},
      {Op::move_rows, move_rows_seconds(dtype, each) / elements},
      {Op::combine, combine_seconds(dtype, each) / elements},
      {Op::route, route_seconds(each) / (kRows * kExperts)},
      {Op::loss, loss_seconds(each) / (kLossRows * kVocab)},
      {Op::squares, squares_seconds(each) / elements},
      {Op::optimizer, optimizer_seconds(each) / elements},
  };
  for (auto& [op, value] : seconds) value = std::max(value - overhead_s / elements, value / 10);
  return seconds;
}

// A call that computes next to nothing: dispatch, checks, one allocation.
double kernel_overhead(double budget_s) {
  Tensor x = random({1, 16}, at::kFloat), weight = random({16}, at::kFloat), rstd = fresh({1}, at::kFloat);
  return median_seconds(budget_s, [&] {
    Tensor out = fresh({1, 16}, at::kFloat);
    kernels::rms_norm(x, weight, 1e-6, out, rstd);
  });
}

// ---- sharing ----

// Work like a training step's: a product in cache and a pass over memory.
struct MixedWork {
  Tensor a = random({256, 256}, at::kFloat), b = random({1024, 256}, at::kFloat),
         x = random({1 << 18}, at::kFloat), y = random({1 << 18}, at::kFloat);
  void run() {
    Tensor out = fresh({256, 1024}, at::kFloat);
    kernels::gemm_nt(a, b, out);
    kernels::add_into(x, y);
  }
};

// Calls per second of each of `workers` threads that run at once.
double rate_of_each(int64_t workers, double seconds) {
  std::vector<std::thread> threads;
  std::vector<double> rates(static_cast<size_t>(workers), 0);
  for (int64_t i = 0; i < workers; ++i)
    threads.emplace_back([&, i] {
      MixedWork work;
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

void measure_sharing(Cluster& cluster, double budget_s) {
  cluster.running = {1};
  for (int64_t count = 2; count <= 2 * cluster.cores && count <= 64; count *= 2)
    cluster.running.push_back(count);
  if (cluster.cores == 1) cluster.running = {1, 2};
  double each = budget_s / static_cast<double>(cluster.running.size());
  double alone = rate_of_each(1, each);
  cluster.speed = {1};
  for (size_t i = 1; i < cluster.running.size(); ++i)
    cluster.speed.push_back(std::min(1.0, rate_of_each(cluster.running[i], each) / alone));
}

void measure_threads(Cluster& cluster, double budget_s) {
  cluster.threads = {1};
  cluster.thread_speed = {1};
  double alone = product_seconds(Product::nt, Precision::float32, 512, 1024, 512, budget_s / 2);
  for (int64_t count = 2; count <= cluster.cores && count <= 64; count *= 2) {
    kernels::set_kernel_threads(count);
    double together = product_seconds(Product::nt, Precision::float32, 512, 1024, 512, budget_s / 2);
    cluster.threads.push_back(count);
    cluster.thread_speed.push_back(std::max(1.0, alone / together));
  }
  kernels::set_kernel_threads(1);
}

// ---- links ----

using Groups = std::vector<std::unique_ptr<Group>>;

Result<Groups> host_groups(int64_t ranks) {
  std::shared_ptr<Store> store = make_memory_store();
  Groups groups(static_cast<size_t>(ranks));
  std::vector<Status> statuses(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      GroupOptions options{.name = fmt::format("calibrate-{}", ranks), .my_rank = rank, .token = "calibrate"};
      options.timeout_s = 30;
      for (int64_t member = 0; member < ranks; ++member) options.members.push_back(member);
      auto group = make_process_group(*store, options);
      if (group)
        groups[static_cast<size_t>(rank)] = std::move(*group);
      else
        statuses[static_cast<size_t>(rank)] = group.error();
    });
  for (std::thread& thread : threads) thread.join();
  for (const Status& status : statuses) TESSERA_RETURN_IF_ERROR(status);
  return groups;
}

// One collective on one rank; `bytes` as in plan::LinkPoint.
class Exchange {
 public:
  Exchange(Group& group, plan::Collective collective, size_t bytes)
      : group_(group), collective_(collective), out_(bytes), in_(bytes) {
    size_t part = bytes / static_cast<size_t>(group.size());
    for (size_t i = 0; i < static_cast<size_t>(group.size()); ++i) {
      outs_.push_back(Bytes(out_).subspan(i * part, part));
      ins_.push_back(MutableBytes(in_).subspan(i * part, part));
    }
  }
  Status run() {
    if (collective_ == plan::Collective::all_gather) return group_.all_gather(outs_[0], whole());
    if (collective_ == plan::Collective::all_to_all) return group_.all_to_all(outs_, ins_);
    // There and back between ranks 0 and 1: two messages.
    int64_t peer = 1 - group_.rank();
    if (group_.rank() > 1) return {};
    if (group_.rank() == 0) TESSERA_RETURN_IF_ERROR(group_.send(peer, out_));
    TESSERA_RETURN_IF_ERROR(group_.recv(peer, in_));
    return group_.rank() == 1 ? group_.send(peer, out_) : Status();
  }

 private:
  MutableBytes whole() { return MutableBytes(in_).first(outs_[0].size() * outs_.size()); }
  Group& group_;
  plan::Collective collective_;
  std::vector<std::byte> out_, in_;
  std::vector<Bytes> outs_;
  std::vector<MutableBytes> ins_;
};

// Seconds of one collective with all ranks running: `calls` of them, back to back.
Result<double> time_collective(Groups& groups, plan::Collective collective, size_t bytes, int64_t calls) {
  std::vector<Status> statuses(groups.size());
  std::vector<double> seconds(groups.size(), 0);
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < groups.size(); ++rank)
    threads.emplace_back([&, rank] {
      Exchange exchange(*groups[rank], collective, bytes);
      Status status = exchange.run();
      if (status) status = groups[rank]->barrier();
      Clock::time_point start = Clock::now();
      for (int64_t i = 0; i < calls && status; ++i) status = exchange.run();
      seconds[rank] = seconds_since(start) / static_cast<double>(calls);
      statuses[rank] = status;
    });
  for (std::thread& thread : threads) thread.join();
  for (const Status& status : statuses) TESSERA_RETURN_IF_ERROR(status);
  double slowest = *std::max_element(seconds.begin(), seconds.end());
  return collective == plan::Collective::send ? seconds[0] / 2 : slowest;
}

// Times are turned into those of ranks with a core each, as the planner shares cores itself.
Status measure_links(Cluster& cluster, int64_t ranks, double budget_s) {
  TESSERA_ASSIGN_OR_RETURN(Groups groups, host_groups(ranks));
  const std::vector<size_t> sizes = {512, 8192, 65536, 1 << 20, 8 << 20};
  std::vector<plan::Collective> collectives = {plan::Collective::all_gather, plan::Collective::all_to_all};
  if (ranks == 2) collectives.push_back(plan::Collective::send);
  double each = budget_s / static_cast<double>(sizes.size() * collectives.size());
  for (plan::Collective collective : collectives)
    for (size_t bytes : sizes) {
      TESSERA_ASSIGN_OR_RETURN(double once, time_collective(groups, collective, bytes, 3));
      auto calls = static_cast<int64_t>(std::clamp(each / std::max(once, 1e-7), 3.0, 300.0));
      TESSERA_ASSIGN_OR_RETURN(double seconds, time_collective(groups, collective, bytes, calls));
      bool alternate = collective == plan::Collective::send;  // one of the two ranks runs at a time
      double speed = alternate ? 1 : cluster.speed_of(static_cast<double>(ranks));
      cluster.links.push_back({collective, ranks, static_cast<double>(bytes), seconds * speed});
    }
  return {};
}

// ---- the machine ----

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
  cluster.provenance["thread_speed"] = "measured here: one product on several kernel threads";
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
    for (Product product : {Product::nt, Product::nn, Product::tn})
      cluster.gemm.push_back(
          measure_grid(product, precision, options.largest_product, next("products in " + name, 9)));
    for (int64_t head_dim : {16, 32, 64, 128})
      cluster.attention.push_back(measure_attention(precision, head_dim, next("attention in " + name, 1.5)));
    auto& ops = precision == Precision::bf16 ? cluster.op_bf16 : cluster.op_float32;
    ops = measure_ops(precision, cluster.kernel_overhead_s, next("one-pass operations in " + name, 6));
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
