// The loops over rows for avx512.
#include "recsys/row_kernels.h"

namespace tessera::recsys {
namespace avx512_level {
namespace {

// clang-format off
#include "recsys/body/rows.h"
#include "recsys/body/updates.h"
// clang-format on

}  // namespace
}  // namespace avx512_level

using namespace avx512_level;
const RowKernels avx512_row_kernels = {
    "avx512",
    {load_f32, load_bf16, load_f16, load_i8},
    {store_f32, store_bf16, store_f16, store_i8},
    {sgd, adagrad, adagrad_row, adam, adamw, ftrl, lamb_row},
    finite,
    initial,
    sum_of_squares,
    add,
};

}  // namespace tessera::recsys
