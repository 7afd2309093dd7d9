// What this process may use of its machine: for the card of a run, for defaults, and for `tessera doctor`.
// Limits of a container count: cores and memory are those of its control group where it sets fewer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

struct Machine {
  std::string host, system, processor;  // "node1", "Linux 6.1.0", "AMD EPYC 7543 32-Core Processor"
  int64_t cores = 1;                    // that threads of this process may run on
  int64_t memory_bytes = 0, available_bytes = 0;
  std::vector<std::string> features;  // of those that matter to us: "avx2", "avx512bf16", ...
};
Machine this_machine();

// Free bytes of the file system that holds `path`; -1 when it cannot be asked.
int64_t free_disk_bytes(const std::string& path);

}  // namespace tessera
