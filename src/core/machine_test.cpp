#include "core/machine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

namespace tessera {
namespace {

TEST(Machine, FiguresAgreeWithTheSystemsOwn) {
  Machine machine = this_machine();
  EXPECT_GE(machine.cores, 1);
  EXPECT_LE(machine.cores, static_cast<int64_t>(std::thread::hardware_concurrency()));
  EXPECT_LE(machine.memory_bytes, sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE));
  EXPECT_GT(machine.available_bytes, 0);
  EXPECT_LE(machine.available_bytes, machine.memory_bytes);
#if defined(__x86_64__)
  bool listed = std::find(machine.features.begin(), machine.features.end(), "avx2") != machine.features.end();
  EXPECT_EQ(listed, __builtin_cpu_supports("avx2") != 0);
#endif
}

TEST(Machine, DiskOfNoPathIsUnknown) {
  EXPECT_GT(free_disk_bytes("/"), 0);
  EXPECT_EQ(free_disk_bytes("/nowhere"), -1);
}

}  // namespace
}  // namespace tessera
