# tessera_embed(PART FOLDER): every file below src/PART/FOLDER becomes a text in the library of the part, found
# by its path below FOLDER through the table `tessera::PART::embedded_files()` that this generates.
function(tessera_embed PART FOLDER)
  set(ROOT ${CMAKE_SOURCE_DIR}/src/${PART}/${FOLDER})
  file(GLOB_RECURSE FILES CONFIGURE_DEPENDS RELATIVE ${ROOT} ${ROOT}/*)
  set(BODY "")
  foreach(FILE ${FILES})
    file(READ ${ROOT}/${FILE} TEXT)
    string(APPEND BODY "    {\"${FILE}\", R\"~embed~(${TEXT})~embed~\"},\n")
    set_property(DIRECTORY ${CMAKE_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${ROOT}/${FILE})
  endforeach()
  set(OUTPUT ${CMAKE_BINARY_DIR}/generated/${PART}_${FOLDER}.cpp)
  file(GENERATE OUTPUT ${OUTPUT} CONTENT
"#include \"${PART}/embedded.h\"
namespace tessera::${PART} {
const std::vector<EmbeddedFile>& embedded_files() {
  static const std::vector<EmbeddedFile> files = {
${BODY}  };
  return files;
}
}  // namespace tessera::${PART}
")
  target_sources(tessera_${PART} PRIVATE ${OUTPUT})
endfunction()
