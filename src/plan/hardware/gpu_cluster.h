// What a GPU (or TPU) cluster is for the planner: one device, the tiers of links around it, and what it costs
// to own, feed and keep alive. Training and serving predictions stand on the same description.
//
// Figures come from data files (src/plan/data/gpus), one per cluster, with the source of each beside it. How
// much of a peak a kernel or a link reaches is apart, in Efficiencies: at most eight constants per device, so
// that a spec sheet alone is enough for a first answer and calibration has little to fit.
//
// Units: FLOP/s (2 per multiply-add, dense), bytes, seconds, watts, USD. Bandwidths are of one device and one
// direction. Threads: values, all functions are const and reentrant.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/result.h"

namespace tessera::plan {

// What the multipliers read. fp16 runs at the rate of bf16; fp4 covers nvfp4 and mxfp4.
enum class MathFormat { float32, tf32, bf16, fp8, fp4 };
const char* to_string(MathFormat format);
double bytes_per_element(MathFormat format);  // without block scales

struct Device {
  std::string vendor;      // "nvidia", "amd", "google"
  std::string generation;  // "ampere", "hopper", "blackwell", "cdna3", "tpu-v5", ...
  double peak_float32 = 0, peak_tf32 = 0, peak_bf16 = 0, peak_fp8 = 0, peak_fp4 = 0;
  double memory_bytes = 0, memory_bytes_per_s = 0;
  double multiprocessors = 0;   // units that take one tile each
  double host_bytes_per_s = 0;  // to the memory of the host
  double peak(MathFormat format) const;
};

// Share of a published peak that is reached when shape and size do not limit.
struct Efficiencies {
  double gemm_bf16 = 0.75, gemm_fp8 = 0.68, gemm_fp4 = 0.6;   // main loop of a large product
  double attention_forward = 0.6, attention_backward = 0.45;  // of peak_bf16, head size 128, long sequences
  double memory = 0.8;                                        // one pass over large tensors
  double link = 0.8, network = 0.85;                          // wire rate inside the innermost tier; beyond it
};

// Devices that reach each other over the same links, from the inside out: NVLink domain, leaf (or rail), spine,
// region. The last tier holds every device.
struct LinkTier {
  std::string name;
  int64_t devices = 1;               // that one such domain holds
  double bytes_per_s = 0;            // wire rate
  double latency_s = 0;              // one hop
  double oversubscription = 1;       // of the links above this tier's members, 1: none
  double reduction_bytes_per_s = 0;  // bus rate of all-reduce inside the switches (NVLS, SHARP), 0: none
  int64_t reduction_ranks = 5;       // fewest ranks for which the library uses it
  bool mesh = false;                 // point-to-point: n members reach (n - 1) / (devices - 1) of bytes_per_s
};

struct Power {
  double device_w = 0;  // rating (TDP) of one device
  double idle_w = 0;    // of one device
  double all_in_w = 0;  // utility power to provide per device: host, network and cooling (at `pue`) included
  double host_w = 0;    // mean power of host and network per device while a job runs, without cooling
  double pue = 1.15;    // of a modern site
};
struct Economy {
  double price_low = 0, price = 0, price_high = 0;  // USD per device hour, rented
  double owned_price = 0;                           // USD per device hour, owned at scale; 0: unknown
  double grid_kg_per_kwh = 0.38;                    // CO2e of the site's electricity
  double embodied_kg = 0;                           // CO2e of making one device with its share of the host
  double lifetime_hours = 35040;                    // over which embodied carbon is written off
};
struct Reliability {
  double failures_per_1000_node_days = 3.79;  // interruptions of a job, per host of `devices_per_host`
  int64_t devices_per_host = 8;
};

struct GpuCluster {
  std::string name;                  // of the catalogue or of the file
  std::vector<std::string> aliases;  // other spellings in published tables
  Device device;
  Efficiencies efficiency;
  std::vector<LinkTier> tiers;
  Power power;
  Economy economy;
  Reliability reliability;
  std::map<std::string, std::string> source;  // key of the file -> where the figure comes from

  const LinkTier& inner() const { return tiers.front(); }
};

// A TOML file with the keys of the structs above, see docs/plan_gpus.md. Errors name file, line, key and the
// nearest known key.
Result<GpuCluster> parse_gpu_cluster(std::string_view toml, const std::string& file_name);
// A name or alias of the catalogue (upper and lower case are equal), or the path of a TOML file.
Result<GpuCluster> load_gpu_cluster(const std::string& name_or_path);
std::vector<std::string> gpu_cluster_names();
// Whether a name or file describes GPUs; the CPU hosts of cluster.h do not.
bool is_gpu_cluster(const std::string& name_or_path);

}  // namespace tessera::plan
