#include "recsys/row_kernels.h"

#include <cstdlib>
#include <cstring>

#include "core/result.h"

namespace tessera::recsys {
namespace {

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

const RowKernels& choose() {
  if (const char* wanted = std::getenv("TESSERA_ISA"); wanted != nullptr && *wanted != '\0') {
    const RowKernels* named = row_kernels_named(wanted);
    TESSERA_REQUIRE(named != nullptr,
                    "TESSERA_ISA={} is not generic, avx2 or avx512, or this processor lacks it", wanted);
    return *named;
  }
  return has_avx512() ? avx512_row_kernels : has_avx2() ? avx2_row_kernels : generic_row_kernels;
}

}  // namespace

const RowKernels* row_kernels_named(const char* name) {
  if (std::strcmp(name, "generic") == 0) return &generic_row_kernels;
  if (std::strcmp(name, "avx2") == 0 && has_avx2()) return &avx2_row_kernels;
  if (std::strcmp(name, "avx512") == 0 && has_avx512()) return &avx512_row_kernels;
  return nullptr;
}

const RowKernels& row_kernels() {
  static const RowKernels& chosen = choose();
  return chosen;
}

}  // namespace tessera::recsys
