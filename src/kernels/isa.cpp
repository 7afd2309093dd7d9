#include "core/cpu_level.h"
#include "kernels/kernels.h"
#include "kernels/table.h"

namespace tessera::kernels {
namespace {

const Table& table_of(CpuLevel level) {
  switch (level) {
    case CpuLevel::generic:
      return generic_table;
    case CpuLevel::avx2:
      return avx2_table;
    case CpuLevel::avx512:
      return avx512_table;
    case CpuLevel::avx512bf16:
      return avx512bf16_table;
  }
  return generic_table;
}

}  // namespace

const Table* table_named(const char* name) {
  const auto level = cpu_level_named(name);
  return level.has_value() && cpu_has(*level) ? &table_of(*level) : nullptr;
}

const Table& table() {
  static const Table& chosen = table_of(cpu_level());
  return chosen;
}

const char* isa() {
  return table().name;
}

}  // namespace tessera::kernels
