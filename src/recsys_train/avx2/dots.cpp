// The loops over pairs of vectors for avx2.
#include "recsys_train/dot_kernels.h"

namespace tessera::recsys_train {
namespace {

constexpr int64_t kLanes = 8;
// clang-format off
#include "recsys_train/body/dots.h"
// clang-format on

}  // namespace

const DotKernels avx2_dot_kernels = {forward, backward};

}  // namespace tessera::recsys_train
