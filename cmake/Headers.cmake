# Target `headers`: every header of src/ compiled alone, with the include paths of its own part. Ninja rebuilds only
# what changed. A part without TORCH has no torch on its path, so its headers cannot lean on it.
add_custom_target(headers)

function(tessera_check_headers NAME)
  file(GLOB_RECURSE HEADERS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${NAME}/*.h)
  # Bodies of kernels are no headers: one file per instruction set includes them all, in its own namespace.
  list(FILTER HEADERS EXCLUDE REGEX "/(kernels|recsys|recsys_train)/body/")
  set(UNITS)
  foreach(HEADER ${HEADERS})
    file(RELATIVE_PATH PATH ${CMAKE_SOURCE_DIR}/src ${HEADER})
    set(UNIT ${CMAKE_BINARY_DIR}/headers/${PATH}.cpp)
    # Twice: the second time proves the guard.
    file(CONFIGURE OUTPUT ${UNIT} CONTENT "#include \"${PATH}\"\n#include \"${PATH}\"\n")
    tessera_set_cpu_level(${UNIT})
    list(APPEND UNITS ${UNIT})
  endforeach()
  if(UNITS)
    add_library(headers_${NAME} OBJECT EXCLUDE_FROM_ALL ${UNITS})
    target_link_libraries(headers_${NAME} PRIVATE tessera_${NAME})
    add_dependencies(headers headers_${NAME})
  endif()
endfunction()
