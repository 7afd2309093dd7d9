// The loops over pairs of vectors for avx512.
#include "recsys_train/dot_kernels.h"

namespace tessera::recsys_train {
namespace {

constexpr int64_t kLanes = 16;
// clang-format off
#include "recsys_train/body/dots.h"
// clang-format on

}  // namespace

const DotKernels avx512_dot_kernels = {forward, backward};

}  // namespace tessera::recsys_train
