// The loops over rows for generic.
#include "recsys/row_kernels.h"

namespace tessera::recsys {
namespace generic_level {
namespace {

// clang-format off
#include "recsys/body/rows.h"
#include "recsys/body/updates.h"
// clang-format on

}  // namespace
}  // namespace generic_level

using namespace generic_level;
const RowKernels generic_row_kernels = {
    "generic",
    {load_f32, load_bf16, load_f16, load_i8},
    {store_f32, store_bf16, store_f16, store_i8},
    {sgd, adagrad, adagrad_row, adam, adamw, ftrl, lamb_row},
    finite,
    initial,
    sum_of_squares,
    add,
};

}  // namespace tessera::recsys
