// The kernels for avx2.
#include <type_traits>

#include "kernels/avx2/simd.h"
#include "kernels/table.h"

namespace tessera::kernels {
namespace avx2 {
namespace {

#define TESSERA_ISA_NAME "avx2"
// clang-format off
#include "kernels/body/products.h"
#include "kernels/body/rows.h"
#include "kernels/body/served.h"
#include "kernels/body/attention.h"
#include "kernels/body/paged.h"
#include "kernels/body/table.h"
// clang-format on

}  // namespace
}  // namespace avx2

const Table avx2_table = avx2::table_of_isa;

}  // namespace tessera::kernels
