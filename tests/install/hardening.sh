#!/bin/sh
# What readelf sees of a build's hardening.  usage: hardening.sh BUILD_DIRECTORY [fortified]
set -eu
failed=0 passed=0

wants() { # FILE WHAT, and a program that reads all of what it is given and says whether it is there
    file=$1 what=$2
    shift 2
    if "$@" >/dev/null; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "${file##*/} has no $what"
    fi
}
uses() { readelf --wide --dyn-syms "$1" | awk '{ print $8 }' | grep -E "$2"; }
dynamic() { readelf --wide --dynamic "$1" | grep -E "$2"; }
segment() { readelf --wide --program-headers "$1" | grep -E "$2"; }

for file in "$1"/bin/rpcrew "$1"/bin/calc "$1"/lib/librpcrew.so; do
    readelf --file-header "$file" | grep -q 'DYN' || { echo "${file##*/} is not position-independent"; failed=1; }
    wants "$file" "stack protector" uses "$file" '^__stack_chk_fail'
    wants "$file" "read-only relocations" segment "$file" 'GNU_RELRO'
    wants "$file" "binding at its start" dynamic "$file" 'BIND_NOW|FLAGS.* NOW'
    wants "$file" "stack that is not executable" segment "$file" 'GNU_STACK .* RW '
    if [ "${2:-}" = fortified ]; then
        wants "$file" "checked libc functions" uses "$file" '_chk(@|$)'
    fi
done
# shellcheck disable=SC2016 # no expression of the shell's
# Large frames touch each page on their way: -fstack-clash-protection leaves its probes in the code.
probes() { objdump -d --no-show-raw-insn "$1" | grep -E 'or[a-z]* +\$0x0,.*\(%rsp\)'; }
if [ "$(uname -m)" = x86_64 ]; then
    wants "$1/lib/librpcrew.so" "stack probes" probes "$1/lib/librpcrew.so"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
