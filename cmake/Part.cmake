# Files below src/NAME/avx512/ are compiled for AVX-512, those below avx512bf16/ also for its products of bf16, those
# below avx512vnni/ also for its dot products of bytes, those below avx2/ for AVX2 with FMA (quant.cpp: and F16C); who
# calls them looks at the processor first.
function(tessera_set_cpu_level SOURCE)
  set(AVX512 "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mfma")
  if(SOURCE MATCHES "/avx512/")
    set_source_files_properties(${SOURCE} PROPERTIES COMPILE_OPTIONS "${AVX512}" SKIP_PRECOMPILE_HEADERS ON)
  elseif(SOURCE MATCHES "/avx512bf16/")
    set_source_files_properties(${SOURCE} PROPERTIES COMPILE_OPTIONS "${AVX512};-mavx512bf16" SKIP_PRECOMPILE_HEADERS ON)
  elseif(SOURCE MATCHES "/avx512vnni/")
    set_source_files_properties(${SOURCE} PROPERTIES COMPILE_OPTIONS "${AVX512};-mavx512vnni" SKIP_PRECOMPILE_HEADERS ON)
  elseif(SOURCE MATCHES "/avx2/quant")
    set_source_files_properties(${SOURCE} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c" SKIP_PRECOMPILE_HEADERS ON)
  elseif(SOURCE MATCHES "/avx2/")
    set_source_files_properties(${SOURCE} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma" SKIP_PRECOMPILE_HEADERS ON)
  endif()
endfunction()

# With TESSERA_UNITY eight files of a part are compiled as one, which parses and instantiates headers an eighth as often:
# the quickest first build, and the slowest second one. Parts named SEPARATE are compiled file by file all the same:
# their files say the same names for different things, or hold hot loops that must not change with their neighbours.
function(tessera_unite TARGET)
  if(TESSERA_UNITY)
    set_target_properties(${TARGET} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
    # A type of one file may hold another of its anonymous namespace: here every file looks like a header.
    target_compile_options(${TARGET} PRIVATE -Wno-subobject-linkage)
  endif()
endfunction()

# tessera_part(NAME [TORCH] [SEPARATE] [DEPENDS part...] [LINK library...])
#
# One part of DESIGN: src/NAME/*.cpp is the library tessera_NAME, src/NAME/*_test.cpp its test
# program NAME_test. A part links only the parts it names, so an upward include fails to link.
function(tessera_part NAME)
  cmake_parse_arguments(ARG "TORCH;SEPARATE" "" "DEPENDS;LINK" ${ARGN})
  set(FOLDER ${CMAKE_SOURCE_DIR}/src/${NAME})
  file(GLOB_RECURSE SOURCES CONFIGURE_DEPENDS ${FOLDER}/*.cpp)
  set(TESTS ${SOURCES})
  list(FILTER SOURCES EXCLUDE REGEX "_test\\.cpp$")
  list(FILTER TESTS INCLUDE REGEX "_test\\.cpp$")

  set(USE tessera_flags ${ARG_LINK})
  foreach(DEPENDENCY ${ARG_DEPENDS})
    list(APPEND USE tessera_${DEPENDENCY})
  endforeach()
  if(ARG_TORCH)
    list(APPEND USE torch_headers torch_runtime)
  endif()

  if(SOURCES)
    add_library(tessera_${NAME} STATIC ${SOURCES})
    target_link_libraries(tessera_${NAME} PUBLIC ${USE})
    foreach(SOURCE ${SOURCES})
      tessera_set_cpu_level(${SOURCE})
    endforeach()
    if(ARG_TORCH)
      target_precompile_headers(tessera_${NAME} REUSE_FROM torch_pch)
    endif()
    if(NOT ARG_SEPARATE)
      tessera_unite(tessera_${NAME})
    endif()
  else()
    add_library(tessera_${NAME} INTERFACE)
    target_link_libraries(tessera_${NAME} INTERFACE ${USE})
  endif()

  if(TESSERA_TESTS AND TESTS)
    add_executable(${NAME}_test ${TESTS})
    target_link_libraries(${NAME}_test PRIVATE tessera_${NAME} GTest::gtest_main)
    target_compile_definitions(${NAME}_test PRIVATE TESSERA_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    target_compile_options(${NAME}_test PRIVATE -O1)  # tests hold no hot loops, and compile a quarter faster
    if(ARG_TORCH)
      target_precompile_headers(${NAME}_test REUSE_FROM torch_pch)
    endif()
    if(NOT ARG_SEPARATE)
      tessera_unite(${NAME}_test)
    endif()
    add_test(NAME ${NAME} COMMAND ${NAME}_test)
    set_tests_properties(${NAME} PROPERTIES TIMEOUT 600)
  endif()
  tessera_check_headers(${NAME})
endfunction()
