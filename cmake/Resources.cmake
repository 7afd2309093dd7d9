# tessera_resources(PART FILE...): texts compiled into the library of a part, found by file name through
# `std::string_view tessera::PART::resource(std::string_view name)`, which the part declares.
function(tessera_resources PART)
  set(BODY "")
  foreach(FILE ${ARGN})
    set_property(DIRECTORY ${CMAKE_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${FILE})
    file(READ ${CMAKE_SOURCE_DIR}/${FILE} TEXT)
    get_filename_component(NAME ${FILE} NAME)
    string(APPEND BODY "  if (name == \"${NAME}\") return R\"~file~(${TEXT})~file~\";\n")
  endforeach()
  set(OUTPUT ${CMAKE_BINARY_DIR}/generated/${PART}_resources.cpp)
  file(WRITE ${OUTPUT}.new
"#include <string_view>
namespace tessera::${PART} {
std::string_view resource(std::string_view name);
std::string_view resource(std::string_view name) {
${BODY}  return {};
}
}  // namespace tessera::${PART}
")
  configure_file(${OUTPUT}.new ${OUTPUT} COPYONLY)
  target_sources(tessera_${PART} PRIVATE ${OUTPUT})
endfunction()
