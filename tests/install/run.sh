#!/bin/sh
# Installs a build into a temporary directory, moves it (it must be relocatable), and builds a program against it
# with CMake and with pkg-config.  usage: run.sh BUILD_DIRECTORY CC
set -eu
here=$(cd "$(dirname "$0")" && pwd)
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cmake --install "$1" --prefix "$room/first" >/dev/null
mv "$room/first" "$room/moved"

check() {
    "$@" | grep -qx '{"jsonrpc":"2.0","result":"hello","id":1}' || { echo "wrong answer from $*"; exit 1; }
}

cmake -G Ninja -S "$here" -B "$room/build" -DCMAKE_PREFIX_PATH="$room/moved" -DCMAKE_C_COMPILER="$2" >/dev/null
cmake --build "$room/build" >/dev/null
check "$room/build/consumer_rpcrew"
check "$room/build/consumer_rpcrew_static"

pc=$(dirname "$(find "$room/moved" -name rpcrew.pc)")
export PKG_CONFIG_PATH="$pc"
# shellcheck disable=SC2046
"$2" -o "$room/by_pc" "$here/consumer.c" $(pkg-config --cflags --libs rpcrew)
check env LD_LIBRARY_PATH="$(pkg-config --variable=libdir rpcrew)" "$room/by_pc"

# The pages that man shows are installed.
for page in man1/rpcrew.1 man7/rpcrew-worker.7; do
    [ -s "$room/moved/share/man/$page" ] || { echo "no $page"; exit 1; }
done

# Nothing but our own names is exported.
library=$(find "$room/moved" -name 'librpcrew.so')
if nm -D --defined-only "$library" | awk '{print $3}' | grep -v '^crew_'; then
    echo "names that are not ours are exported"
    exit 1
fi
echo "1 passed, 0 failed"
