# Compiler flags, ccache and the fast linker when they are there.
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
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
  # designated initialisers leave the rest at its default on purpose; restrict is a false alarm of GCC 12 (bug 105651)
  -Wno-missing-field-initializers -Wno-restrict -fno-fast-math -ffp-contract=off
  -fdiagnostics-color=auto)
target_compile_definitions(tessera_flags INTERFACE FMT_HEADER_ONLY=1)
target_include_directories(tessera_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_link_libraries(tessera_flags INTERFACE Threads::Threads)
if(TESSERA_SANITIZE)
  add_compile_options(-fsanitize=${TESSERA_SANITIZE} -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${TESSERA_SANITIZE})
endif()
