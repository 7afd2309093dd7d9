#include "recsys/row_kernels.h"

#include "core/cpu_level.h"

namespace tessera::recsys {
namespace {

const RowKernels& kernels_of(CpuLevel level) {
  if (level >= CpuLevel::avx512) return avx512_row_kernels;
  return level == CpuLevel::avx2 ? avx2_row_kernels : generic_row_kernels;
}

}  // namespace

const RowKernels* row_kernels_named(const char* name) {
  const auto level = cpu_level_named(name);
  return level.has_value() && cpu_has(*level) ? &kernels_of(*level) : nullptr;
}

const RowKernels& row_kernels() {
  static const RowKernels& chosen = kernels_of(cpu_level());
  return chosen;
}

}  // namespace tessera::recsys
