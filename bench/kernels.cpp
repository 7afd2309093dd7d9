// Products and attention beside PyTorch's on one thread, in one run on one machine.
//
//   cmake --build --preset release --target bench_kernels && build/release/bench/kernels
//
// Times are CPU time of the thread; rows named ours/... and torch/... do the same work.
#include "kernels/kernels.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>
#include <benchmark/benchmark.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace {

using at::Tensor;
using benchmark::State;
namespace kernels = tessera::kernels;

void report(State& state, double flops) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * static_cast<double>(state.iterations()) * 1e-9, benchmark::Counter::kIsRate);
}

Tensor random(at::IntArrayRef sizes, at::ScalarType type) {
  return at::randn(sizes).to(type);
}

struct Operands {
  Tensor a, b, out;
  double flops;
  Operands(const State& state, at::ScalarType type)
      : a(random({state.range(0), state.range(2)}, type)),
        b(random({state.range(1), state.range(2)}, type)),
        out(at::empty({state.range(0), state.range(1)}, type)),
        flops(2.0 * static_cast<double>(state.range(0) * state.range(1) * state.range(2))) {}
};

void ours_product(State& state, at::ScalarType type) {
  Operands o(state, type);
  for (auto _ : state) kernels::gemm_nt(o.a, o.b, o.out);
  report(state, o.flops);
}
void ours_product_packed(State& state, at::ScalarType type) {
  Operands o(state, type);
  const kernels::PackedWeight packed(o.b);
  for (auto _ : state) kernels::gemm_packed(o.a, packed, o.out);
  report(state, o.flops);
}
void ours_product_nn(State& state, at::ScalarType type) {
  Operands o(state, type);
  const Tensor right = o.b.t().contiguous();
  for (auto _ : state) kernels::gemm_nn(o.a, right, o.out);
  report(state, o.flops);
}
void ours_product_tn(State& state, at::ScalarType type) {  // the gradient of a weight: float32 out
  Operands o(state, type);
  const Tensor left = o.a.t().contiguous(), right = o.b.t().contiguous();
  Tensor out = at::empty(o.out.sizes());
  for (auto _ : state) kernels::gemm_tn(left, right, out);
  report(state, o.flops);
}
// As in training: the gradients of many weights, together larger than the caches, grow by one product each.
void ours_product_tn_add(State& state, at::ScalarType type) {
  Operands o(state, type);
  const Tensor left = o.a.t().contiguous(), right = o.b.t().contiguous();
  std::vector<Tensor> sums(static_cast<size_t>((64 << 20) / (o.out.numel() * 4)));
  for (Tensor& sum : sums) sum = at::zeros(o.out.sizes());
  size_t next = 0;
  for (auto _ : state) kernels::gemm_tn(left, right, sums[next++ % sums.size()], true);
  report(state, o.flops);
}
void torch_product(State& state, at::ScalarType type) {
  Operands o(state, type);
  for (auto _ : state) at::mm_out(o.out, o.a, o.b.t());
  report(state, o.flops);
}

// Causal attention over one document: half of the T * T scores.
struct Sequence {
  int64_t tokens, heads, width;
  Tensor q, k, v, start;
  double flops;  // of one product of the scores' size
  Sequence(const State& state, at::ScalarType type)
      : tokens(state.range(0)),
        heads(state.range(1)),
        width(state.range(2)),
        q(random({tokens, heads, width}, type)),
        k(random({tokens, heads, width}, type)),
        v(random({tokens, heads, width}, type)),
        start(at::zeros({tokens}, at::kInt)),
        flops(static_cast<double>(tokens * tokens * heads * width)) {}
};

void ours_attention(State& state, at::ScalarType type) {
  Sequence s(state, type);
  Tensor out = at::empty_like(s.q), lse = at::empty({s.tokens, s.heads});
  for (auto _ : state) kernels::attention(s.q, s.k, s.v, s.start, 0.125, out, lse);
  report(state, 2 * s.flops);
}
void ours_attention_backward(State& state, at::ScalarType type) {
  Sequence s(state, type);
  Tensor out = at::empty_like(s.q), lse = at::empty({s.tokens, s.heads}), dout = at::randn_like(out);
  Tensor dq = at::empty_like(s.q), dk = at::empty_like(s.k), dv = at::empty_like(s.v);
  kernels::attention(s.q, s.k, s.v, s.start, 0.125, out, lse);
  for (auto _ : state) kernels::attention_backward(dout, s.q, s.k, s.v, out, lse, s.start, 0.125, dq, dk, dv);
  report(state, 5 * s.flops);
}
void torch_attention(State& state, at::ScalarType type) {
  Sequence s(state, type);
  auto heads_first = [](const Tensor& x) { return x.unsqueeze(0).transpose(1, 2); };
  for (auto _ : state)
    benchmark::DoNotOptimize(at::scaled_dot_product_attention(heads_first(s.q), heads_first(s.k),
                                                              heads_first(s.v), {}, 0.0, true, 0.125));
  report(state, 2 * s.flops);
}

void shapes(benchmark::internal::Benchmark* b) {
  for (auto shape : {std::array<int64_t, 3>{512, 512, 512},
                     {256, 688, 256},
                     {64, 512, 512},
                     {512, 1376, 256},
                     {512, 4096, 256},
                     {1376, 256, 512},
                     {2048, 256, 688},
                     {256, 256, 2048},
                     {1, 4096, 1024}})
    b->Args({shape[0], shape[1], shape[2]});
}
void gradients(benchmark::internal::Benchmark* b) {
  b->Args({512, 256, 64})
      ->Args({256, 256, 64})
      ->Args({256, 256, 256})
      ->Args({4096, 256, 256})
      ->Args({1376, 256, 512});
}
void sequences(benchmark::internal::Benchmark* b) {
  b->Args({256, 8, 32})->Args({1024, 4, 64})->Args({2048, 2, 128});
}

using Work = void (*)(State&, at::ScalarType);
void add(const char* name, Work work, void (*arguments)(benchmark::internal::Benchmark*)) {
  for (auto [type, suffix] : {std::pair{at::kFloat, "/float32"}, {at::kBFloat16, "/bf16"}})
    benchmark::RegisterBenchmark((std::string(name) + suffix).c_str(), work, type)->Apply(arguments);
}

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
  benchmark::AddCustomContext("isa", kernels::isa());
  benchmark::Initialize(&argc, argv);
  add("ours/product_nt", ours_product, shapes);
  add("ours/product_packed", ours_product_packed, shapes);
  add("ours/product_nn", ours_product_nn, shapes);
  add("ours/product_tn", ours_product_tn, shapes);
  add("ours/product_tn_add", ours_product_tn_add, gradients);
  add("torch/product_nt", torch_product, shapes);
  add("ours/attention", ours_attention, sequences);
  add("torch/attention", torch_attention, sequences);
  add("ours/attention_backward", ours_attention_backward, sequences);
  benchmark::RunSpecifiedBenchmarks();
}
