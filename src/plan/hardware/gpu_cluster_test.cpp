#include "plan/hardware/gpu_cluster.h"

#include <gtest/gtest.h>

#include <set>

namespace tessera::plan {
namespace {

TEST(GpuClusters, CatalogueHoldsEveryAcceleratorThatUsersName) {
  for (const char* name : {"a100-40g", "a100-80g", "h100", "h800", "h20", "h200", "b200", "gb200-nvl72", "b300",
                           "gb300-nvl72", "mi300x", "mi355x", "tpu-v4", "tpu-v5e", "tpu-v5p", "l40s", "v100"})
    EXPECT_TRUE(load_gpu_cluster(name).ok()) << name;
}

// From a device to a region: every level says how fast, how far and how shared.
TEST(GpuClusters, TiersReachFromTheHostToTheRegion) {
  for (const std::string& name : gpu_cluster_names()) {
    GpuCluster cluster = *load_gpu_cluster(name);
    bool google = cluster.device.vendor == "google";  // one torus, then the data-centre network
    EXPECT_GE(cluster.tiers.size(), google ? 2u : 4u) << name;
    for (size_t i = 1; i < cluster.tiers.size(); ++i) {
      const LinkTier &in = cluster.tiers[i - 1], &out = cluster.tiers[i];
      EXPECT_GT(out.devices, in.devices) << name << " " << out.name;
      EXPECT_LE(out.bytes_per_s / out.oversubscription, in.bytes_per_s) << name << " " << out.name;
      EXPECT_GT(out.latency_s, 0) << name << " " << out.name;
    }
    EXPECT_GT(cluster.power.host_w, 0) << name;
    EXPECT_LT(cluster.power.pue * (cluster.power.device_w + cluster.power.host_w),
              1.05 * cluster.power.all_in_w)
        << name;
    EXPECT_GT(cluster.economy.price, 0) << name;
    EXPECT_GT(cluster.economy.embodied_kg, 0) << name;
    EXPECT_GT(cluster.reliability.failures_per_1000_node_days, 0) << name;
  }
}

TEST(GpuClusters, PublishedTablesSpellingsAreUnderstood) {
  EXPECT_EQ(load_gpu_cluster("H100-SXM-80GB")->name, "h100");
  EXPECT_EQ(load_gpu_cluster("GB200-186GB")->name, "gb200-nvl72");
  EXPECT_EQ(load_gpu_cluster("TPU v5p")->name, "tpu-v5p");
}

TEST(GpuClusters, EveryEntryNamesItsSourcesAndIsPhysical) {
  for (const std::string& name : gpu_cluster_names()) {
    GpuCluster cluster = *load_gpu_cluster(name);
    EXPECT_TRUE(cluster.source.contains("peak_bf16")) << name;
    EXPECT_GE(cluster.device.peak(MathFormat::fp8), cluster.device.peak_bf16) << name;
    EXPECT_GT(cluster.power.all_in_w, cluster.power.device_w) << name;
    EXPECT_LE(cluster.economy.price_low, cluster.economy.price_high) << name;
    const Efficiencies& part = cluster.efficiency;
    for (double share : {part.gemm_bf16, part.gemm_fp8, part.gemm_fp4, part.attention_forward,
                         part.attention_backward, part.memory, part.link, part.network}) {
      EXPECT_GT(share, 0.1) << name;
      EXPECT_LE(share, 1) << name;
    }
  }
}

TEST(GpuClusters, TypingErrorNamesTheNearestCluster) {
  auto cluster = load_gpu_cluster("h10");
  ASSERT_FALSE(cluster.ok());
  EXPECT_NE(cluster.error().message.find("did you mean"), std::string::npos) << cluster.error().message;
}

TEST(GpuClusters, FileErrorsNameLineAndKey) {
  const char* text = "name = \"x\"\n[device]\nvendor = \"v\"\ngeneration = \"g\"\npeak_bf17 = 1e12\n";
  auto cluster = parse_gpu_cluster(text, "x.toml");
  ASSERT_FALSE(cluster.ok());
  EXPECT_NE(cluster.error().message.find("x.toml"), std::string::npos) << cluster.error().message;
  EXPECT_NE(cluster.error().message.find("peak_bf1"), std::string::npos) << cluster.error().message;
}

}  // namespace
}  // namespace tessera::plan
