#include <cstdlib>
#include <cstring>

#include "core/result.h"
#include "kernels/kernels.h"
#include "kernels/table.h"

namespace tessera::kernels {
namespace {

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

const Table& choose() {
  if (const char* wanted = std::getenv("TESSERA_ISA"); wanted != nullptr && *wanted != '\0') {
    const Table* named = table_named(wanted);
    TESSERA_REQUIRE(named != nullptr,
                    "TESSERA_ISA={} is not generic, avx2 or avx512, or this processor lacks it", wanted);
    return *named;
  }
  return has_avx512() ? avx512_table : has_avx2() ? avx2_table : generic_table;
}

}  // namespace

const Table* table_named(const char* name) {
  if (std::strcmp(name, "generic") == 0) return &generic_table;
  if (std::strcmp(name, "avx2") == 0 && has_avx2()) return &avx2_table;
  if (std::strcmp(name, "avx512") == 0 && has_avx512()) return &avx512_table;
  return nullptr;
}

const Table& table() {
  static const Table& chosen = choose();
  return chosen;
}

const char* isa() {
  return table().name;
}

}  // namespace tessera::kernels
