# Warnings and sanitizers of our own targets; users of the installed library get none of it.
add_library(rpcrew_flags INTERFACE)
target_compile_definitions(rpcrew_flags INTERFACE _GNU_SOURCE)
# missing-field-initializers: method tables leave out what they do not need
target_compile_options(rpcrew_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition
  -Wpointer-arith -Wcast-qual -Wwrite-strings -Wundef -Wformat=2 -Wvla -Wno-missing-field-initializers)
if(RPCREW_WERROR)
  target_compile_options(rpcrew_flags INTERFACE -Werror)
endif()
# What an attacker's bytes should meet: tests/install/hardening.sh looks for it.
if(NOT RPCREW_SANITIZE AND NOT RPCREW_COVERAGE)
  include(CheckCCompilerFlag)
  check_c_compiler_flag(-fcf-protection RPCREW_HAS_CF_PROTECTION) # x86 only
  target_compile_options(rpcrew_flags INTERFACE -fstack-protector-strong -fstack-clash-protection
    $<$<BOOL:${RPCREW_HAS_CF_PROTECTION}>:-fcf-protection>)
  target_compile_definitions(rpcrew_flags INTERFACE $<$<CONFIG:Release,RelWithDebInfo,MinSizeRel>:_FORTIFY_SOURCE=3>)
  target_link_options(rpcrew_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack)
endif()
if(RPCREW_SANITIZE)
  target_compile_options(rpcrew_flags INTERFACE
    -fsanitize=${RPCREW_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(rpcrew_flags INTERFACE -fsanitize=${RPCREW_SANITIZE})
endif()
if(RPCREW_COVERAGE)
  target_compile_options(rpcrew_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(rpcrew_flags INTERFACE --coverage)
endif()
if(RPCREW_FUZZ)
  target_compile_options(rpcrew_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
