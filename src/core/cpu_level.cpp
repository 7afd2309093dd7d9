#include "core/cpu_level.h"

#include <cstdlib>

#include "core/result.h"

namespace tessera {
namespace {

constexpr CpuLevel kLevels[] = {CpuLevel::avx512bf16, CpuLevel::avx512, CpuLevel::avx2, CpuLevel::generic};

CpuLevel choose() {
  const char* wanted = std::getenv("TESSERA_ISA");
  if (wanted != nullptr && *wanted != '\0') {
    const auto level = cpu_level_named(wanted);
    TESSERA_REQUIRE(level.has_value() && cpu_has(*level),
                    "TESSERA_ISA={} is not generic, avx2, avx512 or avx512bf16, or this processor lacks it",
                    wanted);
    return *level;
  }
  for (CpuLevel level : kLevels)
    if (cpu_has(level)) return level;
  return CpuLevel::generic;
}

}  // namespace

const char* name_of(CpuLevel level) {
  switch (level) {
    case CpuLevel::generic:
      return "generic";
    case CpuLevel::avx2:
      return "avx2";
    case CpuLevel::avx512:
      return "avx512";
    case CpuLevel::avx512bf16:
      return "avx512bf16";
  }
  return "";
}

std::optional<CpuLevel> cpu_level_named(std::string_view name) {
  for (CpuLevel level : kLevels)
    if (name == name_of(level)) return level;
  return std::nullopt;
}

bool cpu_has(CpuLevel level) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  switch (level) {
    case CpuLevel::generic:
      return true;
    case CpuLevel::avx2:
      return avx2;
    case CpuLevel::avx512:
      return avx512;
    case CpuLevel::avx512bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16");
  }
  return false;
}

CpuLevel cpu_level() {
  static const CpuLevel chosen = choose();
  return chosen;
}

}  // namespace tessera
