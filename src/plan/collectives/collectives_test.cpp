#include "plan/collectives/collectives.h"

#include <gtest/gtest.h>

#include <vector>

namespace tessera::plan {
namespace {

constexpr double kMiB = 1024.0 * 1024;

// Golden values of the ring and of the hierarchy, computed by hand: 8 ranks, 256 MiB, 450 GB/s, 2.8 us; then 16
// hosts of 8, 1 GiB, 450 and 50 GB/s, 3.4 and 14 us.
TEST(Collectives, RingAndHierarchyEqualTheirGoldenValues) {
  EXPECT_NEAR(ring_s(CollectiveKind::all_reduce, 8, 256 * kMiB, 450e9, 2.8e-6), 1.083e-3, 1e-6);
  EXPECT_NEAR(hierarchical_all_reduce_s(8, 16, 1024 * kMiB, 450e9, 50e9, 3.4e-6, 14e-6), 9.676e-3, 1e-6);
}

// nccl-tests, one host of 8 H200, bus bandwidth in GB/s (published/hardware_efficiency.csv).
TEST(Collectives, AllReduceOnOneHostFollowsMeasuredBusBandwidth) {
  struct Row {
    double bytes, bus_gb_s;
  };
  const std::vector<Row> rows = {{32 * 1024.0, 1.44},   {kMiB, 39.93},         {4 * kMiB, 107.16},
                                 {16 * kMiB, 219.89},   {64 * kMiB, 346.51},   {256 * kMiB, 436.15},
                                 {1024 * kMiB, 463.58}, {16384 * kMiB, 482.26}};
  GpuCluster cluster = *load_gpu_cluster("h200");
  for (const Row& row : rows) {
    double measured = 1.75 * row.bytes / (row.bus_gb_s * 1e9);
    double predicted = collective_s(cluster, CollectiveKind::all_reduce, {.ranks = 8}, row.bytes);
    // Short messages are latency alone, which differs from host to host: 22 to 40 us.
    EXPECT_NEAR(predicted / measured, 1, row.bytes < 16 * kMiB ? 0.4 : 0.15) << row.bytes;
  }
}

// nccl-tests, 8 H200, 16 GiB: all-gather 361.4 and reduce-scatter 362.9 GB/s, which use no switch reduction.
TEST(Collectives, GatherAndScatterReachTheRingRate) {
  GpuCluster cluster = *load_gpu_cluster("h200");
  double bytes = 16384 * kMiB;
  for (auto kind : {CollectiveKind::all_gather, CollectiveKind::reduce_scatter}) {
    CollectiveTime time = collective_time(cluster, kind, {.ranks = 8}, bytes);
    EXPECT_EQ(time.algorithm, CollectiveAlgorithm::ring);
    EXPECT_NEAR(0.875 * bytes / time.seconds / 1e9, 362, 0.05 * 362);
  }
}

// 4 hosts of 8 B200, 8 x 400 Gb/s each, 16 GiB all-reduce: 381.8 GB/s of bus bandwidth, the sum of the NICs.
TEST(Collectives, RingsThroughHostsUseAllNetworkLinks) {
  GpuCluster cluster = *load_gpu_cluster("b200");
  cluster.efficiency.network = 0.95;
  double bytes = 16384 * kMiB;
  double seconds = collective_s(cluster, CollectiveKind::all_reduce, {.ranks = 32}, bytes);
  EXPECT_NEAR(2.0 * 31 / 32 * bytes / seconds / 1e9, 381.8, 0.05 * 381.8);
}

// DeepEP, H800, 16 ranks on two hosts: the network carries 43 to 50 GB/s per rank whatever goes inside.
TEST(Collectives, AllToAllAcrossHostsIsBoundByEachDevicesOwnLink) {
  GpuCluster cluster = *load_gpu_cluster("h800");
  double bytes = 512 * kMiB;
  double seconds = collective_s(cluster, CollectiveKind::all_to_all, {.ranks = 16}, bytes);
  EXPECT_NEAR(bytes / 2 / seconds / 1e9, 46, 5);
}

TEST(Collectives, StrideDecidesTheTier) {
  GpuCluster cluster = *load_gpu_cluster("h100");
  EXPECT_EQ(collective_time(cluster, CollectiveKind::all_gather, {.ranks = 8}, 1e9).tier, 0);
  EXPECT_EQ(collective_time(cluster, CollectiveKind::all_gather, {.ranks = 8, .stride = 8}, 1e9).tier, 1);
  EXPECT_EQ(collective_time(cluster, CollectiveKind::all_gather, {.ranks = 64, .stride = 8}, 1e9).tier, 2);
  EXPECT_EQ(collective_s(cluster, CollectiveKind::all_gather, {.ranks = 1}, 1e9), 0);
}

TEST(Collectives, SharingALinkDividesItsRate) {
  GpuCluster cluster = *load_gpu_cluster("h100");
  RankGroup alone{.ranks = 16, .stride = 8}, shared{.ranks = 16, .stride = 8, .sharers = 2};
  double one = collective_s(cluster, CollectiveKind::all_gather, alone, 8e9);
  EXPECT_NEAR(collective_s(cluster, CollectiveKind::all_gather, shared, 8e9) / one, 2, 0.02);
}

}  // namespace
}  // namespace tessera::plan
