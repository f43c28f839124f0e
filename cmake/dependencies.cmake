include(cmake/rpcrew-dependencies.cmake)
pkg_check_modules(GCRYPT REQUIRED IMPORTED_TARGET libgcrypt>=1.10) # workers/digest
