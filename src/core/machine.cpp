#include "core/machine.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

namespace tessera {
namespace {

// The text behind "name" and a colon in a file such as /proc/cpuinfo; "" when there is none.
std::string field_of(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    size_t colon = line.find(':');
    if (colon == std::string::npos || line.compare(0, name.size(), name) != 0) continue;
    size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

int64_t kilobytes_of(const std::string& name) {
  return std::atoll(field_of("/proc/meminfo", name).c_str()) * 1024;
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

int64_t allowed_cores() {
  cpu_set_t set;
  int64_t cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  std::istringstream quota(first_line("/sys/fs/cgroup/cpu.max"));  // "200000 100000", or "max 100000"
  double used = 0, period = 0;
  if (quota >> used >> period && period > 0)
    cores = std::min(cores, static_cast<int64_t>(std::ceil(used / period)));
  return std::max<int64_t>(cores, 1);
}

int64_t memory_limit() {
  int64_t total = kilobytes_of("MemTotal");
  int64_t limit = std::atoll(first_line("/sys/fs/cgroup/memory.max").c_str());  // 0 for "max"
  return limit > 0 ? std::min(total, limit) : total;
}

std::vector<std::string> processor_features() {
  // As /proc/cpuinfo spells them, and as we and compilers do.
  static const std::vector<std::pair<std::string, std::string>> known = {{"avx2", "avx2"},
                                                                         {"fma", "fma"},
                                                                         {"f16c", "f16c"},
                                                                         {"avx512f", "avx512f"},
                                                                         {"avx512bw", "avx512bw"},
                                                                         {"avx512vl", "avx512vl"},
                                                                         {"avx512_bf16", "avx512bf16"},
                                                                         {"avx512_vnni", "avx512vnni"},
                                                                         {"amx_bf16", "amx-bf16"},
                                                                         {"amx_int8", "amx-int8"}};
  std::istringstream words(field_of("/proc/cpuinfo", "flags"));
  std::vector<std::string> flags{std::istream_iterator<std::string>(words), {}}, found;
  for (const auto& [flag, name] : known)
    if (std::find(flags.begin(), flags.end(), flag) != flags.end()) found.push_back(name);
  return found;
}

}  // namespace

Machine this_machine() {
  Machine machine;
  utsname names{};
  uname(&names);
  machine.host = names.nodename;
  machine.system = fmt::format("{} {}", names.sysname, names.release);
  machine.processor = field_of("/proc/cpuinfo", "model name");
  if (machine.processor.empty()) machine.processor = names.machine;
  machine.cores = allowed_cores();
  machine.memory_bytes = memory_limit();
  machine.available_bytes = std::min(kilobytes_of("MemAvailable"), machine.memory_bytes);
  machine.features = processor_features();
  return machine;
}

int64_t free_disk_bytes(const std::string& path) {
  struct statvfs disk {};
  if (statvfs(path.c_str(), &disk) != 0) return -1;
  return static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
}

}  // namespace tessera
