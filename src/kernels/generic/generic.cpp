// The kernels for generic.
#include <type_traits>

#include "kernels/generic/simd.h"
#include "kernels/table.h"

namespace tessera::kernels {
namespace generic {
namespace {

#define TESSERA_ISA_NAME "generic"
// clang-format off
#include "kernels/body/products.h"
#include "kernels/body/rows.h"
#include "kernels/body/served.h"
#include "kernels/body/attention.h"
#include "kernels/body/paged.h"
#include "kernels/body/table.h"
// clang-format on

}  // namespace
}  // namespace generic

const Table generic_table = generic::table_of_isa;

}  // namespace tessera::kernels
