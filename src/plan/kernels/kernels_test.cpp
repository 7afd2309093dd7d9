#include "plan/kernels/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace tessera::plan {
namespace {

Kernels kernels_of(const char* name) {
  return Kernels(*load_gpu_cluster(name));
}

// DeepGEMM's first README, H800, FP8 (published/hardware_efficiency.csv): the model has one constant here, the
// share of the peak. Small products are allowed more: they live on the memory side of the roofline.
TEST(Kernels, Fp8ProductsOnH800FollowDeepGemmsTable) {
  struct Row {
    double m, n, k, tflops;
  };
  const std::vector<Row> rows = {{4096, 2112, 7168, 1058},  {4096, 24576, 1536, 990}, {4096, 32768, 512, 590},
                                 {4096, 7168, 16384, 1358}, {4096, 4096, 7168, 1304}, {4096, 7168, 2048, 1025},
                                 {64, 2112, 7168, 206},     {64, 7168, 16384, 336},   {128, 2112, 7168, 352},
                                 {128, 7168, 16384, 645},   {128, 4096, 7168, 533}};
  Kernels kernels = kernels_of("h800");
  double sum = 0;
  for (const Row& row : rows) {
    double seconds = kernels.gemm_s({.m = row.m, .n = row.n, .k = row.k, .format = MathFormat::fp8});
    double tflops = 2 * row.m * row.n * row.k / seconds / 1e12;
    sum += std::abs(tflops / row.tflops - 1);
    EXPECT_NEAR(tflops / row.tflops, 1, 0.35) << row.m << " " << row.n << " " << row.k << ": " << tflops;
  }
  EXPECT_LT(sum / static_cast<double>(rows.size()), 0.15);
}

// FlashAttention-2, forward and backward together, H100, causal, 16k tokens, hidden 2048.
TEST(Kernels, AttentionRateFollowsSequenceAndHeadSizeAsFlashAttentionMeasured) {
  struct Row {
    double head_dim, seq, tflops;
  };
  const std::vector<Row> rows = {{128, 512, 163},  {128, 1024, 221},  {128, 2048, 265}, {128, 4096, 294},
                                 {128, 8192, 308}, {128, 16384, 328}, {64, 512, 141},   {64, 2048, 232},
                                 {64, 8192, 273},  {64, 16384, 284}};
  Kernels kernels = kernels_of("h100");
  auto tflops = [&](double head_dim, double seq) {
    AttentionShape shape{.batch = 16384 / seq,
                         .heads = 2048 / head_dim,
                         .kv_heads = 2048 / head_dim,
                         .q_len = seq,
                         .kv_len = seq,
                         .head_dim = head_dim,
                         .v_head_dim = head_dim};
    double flops = 3.5 * 4 * Kernels::attention_pairs(shape) * shape.batch * shape.heads * head_dim;
    double seconds = kernels.attention_s(shape);
    shape.backward = true;
    return flops / (seconds + kernels.attention_s(shape)) / 1e12;
  };
  // One factor for the kernel generation, everything else is shape.
  double scale = 328 / tflops(128, 16384);
  for (const Row& row : rows)
    EXPECT_NEAR(tflops(row.head_dim, row.seq) * scale / row.tflops, 1, 0.15) << row.head_dim << " " << row.seq;
}

TEST(Kernels, PairsEqualCountingThemOneByOne) {
  for (double q : {1.0, 7.0, 20.0})
    for (double before : {0.0, 5.0, 40.0})
      for (double window : {0.0, 4.0, 12.0, 100.0}) {
        double pairs = 0;
        for (double position = before; position < before + q; ++position)
          pairs += window > 0 ? std::min(position + 1, window) : position + 1;
        AttentionShape shape{.q_len = q, .kv_len = before + q, .window = window};
        EXPECT_NEAR(Kernels::attention_pairs(shape), pairs, window > 0 ? window : 1e-9)
            << q << " " << before << " " << window;
      }
}

TEST(Kernels, DecodingReadsItsCacheAtMemorySpeed) {
  Kernels kernels = kernels_of("h100");
  AttentionShape shape{.batch = 64, .heads = 64, .kv_heads = 8, .q_len = 1, .kv_len = 4096};
  double bytes = 64.0 * 8 * 4096 * 256 * 2;
  EXPECT_NEAR(kernels.attention_s(shape), bytes / (3.35e12 * 0.8), 0.1 * bytes / (3.35e12 * 0.8));
}

TEST(Kernels, NoProductBeatsThePeakOrTheMemory) {
  Kernels kernels = kernels_of("b200");
  for (double m : {1.0, 100.0, 4096.0, 65536.0})
    for (double n : {64.0, 5000.0, 57344.0})
      for (double k : {128.0, 8192.0}) {
        double seconds = kernels.gemm_s({.m = m, .n = n, .k = k});
        EXPECT_GE(seconds, 2 * m * n * k / 2.25e15);
        EXPECT_GE(seconds, 2 * (m * k + n * k + m * n) / 8e12);
      }
}

TEST(Kernels, OneExpertIsOneProductAndTenTakeTenTimesAsLong) {
  Kernels kernels = kernels_of("h100");
  double one = kernels.gemm_s({.m = 4096, .n = 4096, .k = 7168});
  EXPECT_NEAR(kernels.grouped_gemm_s({.groups = 1, .rows = 4096, .n = 4096, .k = 7168}), one, 1e-9);
  double ten = kernels.grouped_gemm_s({.groups = 10, .rows = 40960, .n = 4096, .k = 7168});
  EXPECT_NEAR(ten / one, 10, 1);
}

}  // namespace
}  // namespace tessera::plan
