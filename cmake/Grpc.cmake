# tessera_grpc(PART PROTO): PART answers gRPC; PROTO, a file of it, is compiled by protoc into the build folder.
# TESSERA_GRPC is ON when the packages are there: libgrpc++-dev, libprotobuf-dev, protobuf-compiler-grpc.
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(GRPC QUIET grpc++ protobuf)
endif()
find_program(PROTOC protoc)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin)
if(GRPC_FOUND AND PROTOC AND GRPC_CPP_PLUGIN)
  set(TESSERA_GRPC ON)
endif()

function(tessera_grpc PART PROTO)
  set(FOLDER ${CMAKE_SOURCE_DIR}/src/${PART})
  set(OUTPUT ${CMAKE_BINARY_DIR}/generated/${PART})
  file(MAKE_DIRECTORY ${OUTPUT})
  set(GENERATED ${OUTPUT}/${PROTO}.pb.cc ${OUTPUT}/${PROTO}.grpc.pb.cc)
  add_custom_command(
    OUTPUT ${GENERATED} ${OUTPUT}/${PROTO}.pb.h ${OUTPUT}/${PROTO}.grpc.pb.h
    COMMAND ${PROTOC} --proto_path=${FOLDER} --cpp_out=${OUTPUT} --grpc_out=${OUTPUT}
      --plugin=protoc-gen-grpc=${GRPC_CPP_PLUGIN} ${FOLDER}/${PROTO}.proto
    DEPENDS ${FOLDER}/${PROTO}.proto)
  # Not our code: no warnings, and no time for optimising what only packs bytes.
  set_source_files_properties(${GENERATED} PROPERTIES COMPILE_OPTIONS "-w;-O1")
  target_sources(tessera_${PART} PRIVATE ${GENERATED})
  target_include_directories(tessera_${PART} SYSTEM PUBLIC ${OUTPUT})  # headers of PART include what is generated
endfunction()
