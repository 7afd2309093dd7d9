# Compiler flags, ccache and the fast linker when they are there.
find_program(CCACHE ccache)
if(CCACHE)
  # What ccache asks for before it caches files that use a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
  add_compile_options(-fpch-preprocess)
endif()
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()
find_package(Threads REQUIRED)

add_library(tessera_flags INTERFACE)
# -ffp-contract=off: sums must not change with the compiler's taste for fused multiply-add;
# where a fused product is wanted, the code says fma.
target_compile_options(tessera_flags INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wshadow -Wnon-virtual-dtor
  # designated initialisers leave the rest at its default on purpose; the other two are false alarms of GCC 12
  -Wno-missing-field-initializers -Wno-restrict -Wno-maybe-uninitialized -fno-fast-math -ffp-contract=off
  -fdiagnostics-color=auto)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
  # A false alarm of GCC 13 (Ubuntu 24.04) where a vector of structs with strings grows.
  target_compile_options(tessera_flags INTERFACE -Wno-stringop-overflow)
endif()
target_include_directories(tessera_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
# fmt is linked, not compiled into every file: half of the compile time of a small file.
target_link_libraries(tessera_flags INTERFACE Threads::Threads fmt)
if(TESSERA_SANITIZE)
  add_compile_options(-fsanitize=${TESSERA_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${TESSERA_SANITIZE})
endif()
