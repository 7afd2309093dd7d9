// One accelerator as a server sees it: what its kernels and links reach, out of the catalogue of GPU clusters
// (plan/hardware). Rates are peaks times the efficiencies of the device; what an engine loses of them is its
// own (engine.h). Units: FLOP/s, bytes, bytes/s per direction. 0: not there.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"
#include "plan/hardware/gpu_cluster.h"
#include "spec/blueprint.h"

namespace tessera::plan::serving {

struct Accelerator {
  std::string name;                   // of the catalogue
  std::string generation;             // "ampere", "hopper", "blackwell", ...: the key of an engine's rates
  double bf16 = 0, fp8 = 0, fp4 = 0;  // large products
  double attention = 0;               // prefill attention
  double memory_bytes = 0, memory_bytes_per_s = 0;
  double link_bytes_per_s = 0;  // inside a domain
  int64_t domain = 1;           // accelerators that share the fast link
  double nic_bytes_per_s = 0;   // between domains
  Power power;
  Economy economy;

  // Of products with weights in this format: a format without units of its own is widened first.
  double rate(WeightFormat format) const;
  const char* rate_name(WeightFormat format) const;  // "bf16", "fp8", "fp4": the units that run it
};

// Names as in the catalogue, on price lists and in published tables: h200, h200_sxm, H200-SXM-141GB; or the
// path of a cluster file. `site`: as plan train's --site ("pue=1.1,price=2"), over the cluster's own figures.
// Threads: any.
Result<Accelerator> accelerator(const std::string& name, const std::string& site = "");

}  // namespace tessera::plan::serving
