#include "plan/serving/accelerator.h"

#include <cctype>
#include <map>
#include <mutex>

#include "plan/training/run_cost.h"

namespace tessera::plan::serving {
namespace {

Accelerator from_cluster(const GpuCluster& cluster) {
  Accelerator a;
  a.name = cluster.name;
  a.generation = cluster.device.generation;
  a.bf16 = cluster.device.peak_bf16 * cluster.efficiency.gemm_bf16;
  a.fp8 = cluster.device.peak_fp8 * cluster.efficiency.gemm_fp8;
  a.fp4 = cluster.device.peak_fp4 * cluster.efficiency.gemm_fp4;
  a.attention = cluster.device.peak_bf16 * cluster.efficiency.attention_forward;
  a.memory_bytes = cluster.device.memory_bytes;
  a.memory_bytes_per_s = cluster.device.memory_bytes_per_s * cluster.efficiency.memory;
  a.link_bytes_per_s = cluster.inner().bytes_per_s * cluster.efficiency.link;
  a.domain = cluster.inner().devices;
  const LinkTier& outer = cluster.tiers.size() > 1 ? cluster.tiers[1] : cluster.inner();
  a.nic_bytes_per_s = outer.bytes_per_s * cluster.efficiency.network;
  a.power = cluster.power;
  a.economy = cluster.economy;
  return a;
}

// Published tables add memory, form factor or board: "h200_sxm", "B200-180GB".
Result<GpuCluster> load(const std::string& name) {
  Result<GpuCluster> whole = load_gpu_cluster(name);
  if (whole.ok()) return whole;
  Result<GpuCluster> first_word = load_gpu_cluster(name.substr(0, name.find_first_of("-_ ")));
  return first_word.ok() ? first_word : whole;
}

bool is_four_bit_float(WeightFormat format) {
  return format == WeightFormat::nvfp4 || format == WeightFormat::mxfp4;
}

}  // namespace

double Accelerator::rate(WeightFormat format) const {
  if (is_four_bit_float(format) && fp4 > 0) return fp4;
  if (format == WeightFormat::fp8 && fp8 > 0) return fp8;
  return bf16;
}

const char* Accelerator::rate_name(WeightFormat format) const {
  if (is_four_bit_float(format) && fp4 > 0) return "fp4";
  if (format == WeightFormat::fp8 && fp8 > 0) return "fp8";
  return "bf16";
}

Result<Accelerator> accelerator(const std::string& name, const std::string& site) {
  static std::mutex mutex;
  static std::map<std::pair<std::string, std::string>, Accelerator> known;
  std::lock_guard lock(mutex);
  auto found = known.find({name, site});
  if (found != known.end()) return found->second;
  TESSERA_ASSIGN_OR_RETURN(GpuCluster cluster, load(name));
  TESSERA_ASSIGN_OR_RETURN(cluster, at_site(std::move(cluster), site));
  return known.emplace(std::pair(name, site), from_cluster(cluster)).first->second;
}

}  // namespace tessera::plan::serving
