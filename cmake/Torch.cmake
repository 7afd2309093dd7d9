# libtorch from the torch wheel of the Python on PATH (or -DTESSERA_PYTHON=...).
# The imported targets are defined by hand: the wheel's own CMake package stops when a CUDA wheel
# finds no CUDA toolkit, and host code needs none.
set(TESSERA_PYTHON python3 CACHE STRING "Python whose torch package gives libtorch")
execute_process(
  COMMAND ${TESSERA_PYTHON} -c
    "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '', end='')"
  OUTPUT_VARIABLE TORCH_DIR RESULT_VARIABLE FAILED)
if(FAILED OR NOT TORCH_DIR)
  message(FATAL_ERROR "${TESSERA_PYTHON} has no torch package: run `pip install torch==2.13.0`, "
    "give -DTESSERA_PYTHON=PATH, or build the planner alone with --preset plan-only")
endif()
message(STATUS "libtorch: ${TORCH_DIR}")

add_library(torch_headers INTERFACE)
target_include_directories(torch_headers SYSTEM INTERFACE
  ${TORCH_DIR}/include ${TORCH_DIR}/include/torch/csrc/api/include)

add_library(torch_runtime INTERFACE)
target_link_directories(torch_runtime INTERFACE ${TORCH_DIR}/lib)
target_link_options(torch_runtime INTERFACE -Wl,-rpath,${TORCH_DIR}/lib -Wl,--no-as-needed)
target_link_libraries(torch_runtime INTERFACE torch torch_cpu c10)

# torch's headers bring an fmt of their own, newer than the system's, whose bodies no library of torch exports.
add_library(torch_fmt STATIC ${CMAKE_CURRENT_LIST_DIR}/torch_fmt.cpp)
target_link_libraries(torch_fmt PUBLIC torch_headers)
target_link_libraries(torch_runtime INTERFACE torch_fmt)

# Parsing ATen takes five seconds a file, so the parts on torch share one precompiled header. Headers still include
# what they use: target `headers` compiles them without it.
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/torch_pch.cpp CONTENT "// Owner of the precompiled header.\n")
add_library(torch_pch OBJECT ${CMAKE_BINARY_DIR}/generated/torch_pch.cpp)
target_link_libraries(torch_pch PRIVATE tessera_flags torch_headers)
target_precompile_headers(torch_pch PRIVATE <ATen/core/Tensor.h> <ATen/ops/empty.h> <fmt/format.h> <fmt/ranges.h>
  <nlohmann/json.hpp> <algorithm> <atomic> <condition_variable> <filesystem> <functional> <map> <memory> <mutex>
  <optional> <span> <string> <thread> <unordered_map> <vector>)
