#include "train/calibrate.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "core/clock.h"
#include "kernels/kernels.h"
#include "plan/search.h"

namespace tessera::train {
namespace {

TEST(Calibrate, MeasuresEverythingThePlannerPricesAndTheFileReadsBack) {
  kernels::set_kernel_threads(2);
  double last = 0;
  CalibrationOptions options{.seconds = 0.5, .largest_product = 1e8};
  options.progress = [&](const std::string&, double done) {
    EXPECT_GE(done, last);
    last = done;
  };
  auto cluster = calibrate(options);
  ASSERT_TRUE(cluster.ok()) << cluster.error().message;
  EXPECT_EQ(last, 1);
  EXPECT_EQ(kernels::kernel_threads(), 2);
  EXPECT_EQ(cluster->op_float32.size(), static_cast<size_t>(plan::kOps));
  EXPECT_EQ(cluster->op_bf16.size(), static_cast<size_t>(plan::kOps));
  EXPECT_EQ(cluster->gemm.size(), 6u);
  for (double speed : cluster->speed) EXPECT_GT(speed, 0);
  auto again = plan::parse_cluster(plan::to_toml(*cluster), "here");
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(plan::to_toml(*again), plan::to_toml(*cluster));

  // A product inside the grid costs what it costs: within a factor of two of a direct measurement, the machine
  // being shared with other tests.
  at::Tensor a = at::ones({64, 256}), b = at::ones({256, 256}), out = at::empty({64, 256});
  kernels::set_kernel_threads(1);
  double best = 1;
  for (int i = 0; i < 20; ++i) {
    Clock::time_point start = Clock::now();
    kernels::gemm_nt(a, b, out);
    best = std::min(best, seconds_since(start));
  }
  double predicted = again->product_s(plan::Product::nt, Precision::float32, 64, 256, 256);
  EXPECT_GT(predicted, best / 2);
  EXPECT_LT(predicted, best * 4);
}

}  // namespace
}  // namespace tessera::train
