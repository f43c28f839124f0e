# What librpcrew is linked with, for its own build and for those who link the static library. Debian's jansson and
# libzmq ship no CMake config, so all come through pkg-config.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.14)
pkg_search_module(MSGPACK REQUIRED IMPORTED_TARGET msgpack-c msgpackc msgpack) # its name differs by version
pkg_check_modules(RABBITMQ REQUIRED IMPORTED_TARGET librabbitmq>=0.11)
pkg_check_modules(ZMQ REQUIRED IMPORTED_TARGET libzmq>=4.3)
find_package(OpenSSL 3.0 REQUIRED COMPONENTS SSL)

# Neither says where it is by pkg-config everywhere.
function(rpcrew_find name library header)
  find_library(${name}_LIBRARY ${library} REQUIRED)
  find_path(${name}_INCLUDE ${header} REQUIRED)
  if(NOT TARGET ${name})
    add_library(${name} UNKNOWN IMPORTED)
    set_target_properties(${name} PROPERTIES IMPORTED_LOCATION ${${name}_LIBRARY}
      INTERFACE_INCLUDE_DIRECTORIES ${${name}_INCLUDE})
  endif()
endfunction()
rpcrew_find(rpcrew_http_parser http_parser http_parser.h)
rpcrew_find(rpcrew_wslay wslay wslay/wslay.h)

# msgpack-c 6.0's .pc names a relative include directory, which CMake refuses.
get_target_property(msgpack_includes PkgConfig::MSGPACK INTERFACE_INCLUDE_DIRECTORIES)
if(msgpack_includes)
  list(FILTER msgpack_includes INCLUDE REGEX "^/")
  set_target_properties(PkgConfig::MSGPACK PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${msgpack_includes}")
endif()
