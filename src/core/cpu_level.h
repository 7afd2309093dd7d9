// Loops that are compiled for several instruction sets are chosen at run time. This is the choice, made once
// for all parts: the best level of this processor, or the one that the variable TESSERA_ISA names.
#pragma once

#include <optional>
#include <string_view>

namespace tessera {

// Each level contains those before it. avx2 includes FMA; avx512 is F, BW, VL and DQ; avx512bf16 adds products
// of bf16.
enum class CpuLevel { generic, avx2, avx512, avx512bf16 };

const char* name_of(CpuLevel level);
std::optional<CpuLevel> cpu_level_named(std::string_view name);
bool cpu_has(CpuLevel level);

// Stops the program when TESSERA_ISA names no level or one that this processor lacks.
CpuLevel cpu_level();

}  // namespace tessera
