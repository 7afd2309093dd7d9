// The kernels for avx512bf16: those of avx512, with the instruction that multiplies pairs of bf16.
// GCC 12 takes the undefined registers of its own AVX-512 header for a mistake of ours (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <type_traits>

#define TESSERA_AVX512 avx512bf16
#include "kernels/avx512/simd.h"
#include "kernels/table.h"

namespace tessera::kernels {
namespace avx512bf16 {
namespace {

#define TESSERA_ISA_NAME "avx512bf16"
// clang-format off
#include "kernels/body/products.h"
#include "kernels/body/rows.h"
#include "kernels/body/served.h"
#include "kernels/body/attention.h"
#include "kernels/body/paged.h"
#include "kernels/body/table.h"
// clang-format on

}  // namespace
}  // namespace avx512bf16

const Table avx512bf16_table = avx512bf16::table_of_isa;

}  // namespace tessera::kernels
