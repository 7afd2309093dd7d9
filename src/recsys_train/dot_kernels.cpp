#include "recsys_train/dot_kernels.h"

#include "core/cpu_level.h"

namespace tessera::recsys_train {

const DotKernels* dot_kernels(int64_t vectors, int64_t dim) {
  constexpr int64_t kMostVectors = 127, kMostDim = 256;  // of body/dots.h
  const int64_t lanes = cpu_level() >= CpuLevel::avx512 && dim % 16 == 0 ? 16 : 8;
  if (cpu_level() < CpuLevel::avx2 || vectors > kMostVectors || dim > kMostDim || dim % lanes != 0)
    return nullptr;
  return lanes == 16 ? &avx512_dot_kernels : &avx2_dot_kernels;
}

}  // namespace tessera::recsys_train
