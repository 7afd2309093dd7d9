// The kernels for avx512.
// GCC 12 takes the undefined registers of its own AVX-512 header for a mistake of ours (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <type_traits>

#include "kernels/avx512/simd.h"
#include "kernels/table.h"

namespace tessera::kernels {
namespace avx512 {
namespace {

#define TESSERA_ISA_NAME "avx512"
// clang-format off
#include "kernels/body/products.h"
#include "kernels/body/rows.h"
#include "kernels/body/served.h"
#include "kernels/body/attention.h"
#include "kernels/body/paged.h"
#include "kernels/body/table.h"
// clang-format on

}  // namespace
}  // namespace avx512

const Table avx512_table = avx512::table_of_isa;

}  // namespace tessera::kernels
