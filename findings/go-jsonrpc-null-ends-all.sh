#!/bin/sh
# Go 1.19's net/rpc/jsonrpc (Debian 12): a client takes a result of null for a broken reply, and gives up its connection.
#
# JSON-RPC 1.0 lets a method answer {"result":null,"error":null,"id":0}: it has nothing to say. Go's client codec takes
# a missing result for an error and then wants the error to be a string: "invalid error <nil>", which net/rpc does not
# see as the end of one call but of the connection: the other calls that wait on it fail with it, and so do all later
# ones ("connection is shut down"). An error that is an object, as most services send, does the same. An error that is
# a string, and a result of {} are fine.
#
# For rpcrew: a worker's error=string is for such callers. JSON-RPC 1.0's errors are then strings, and null is {}.
#
# Source: src/net/rpc/jsonrpc/client.go, ReadResponseHeader, and src/net/rpc/client.go, input
# (https://github.com/golang/go); https://www.jsonrpc.org/specification_v1.
set -eu
room=$(mktemp -d)
trap 'chmod -R u+w "$room"; rm -rf "$room"' EXIT
chmod 755 "$room"
cd "$room"
version=1.19.8-2
for package in golang-1.19-go golang-1.19-src; do
    apt-get download -qq $package=$version 2>/dev/null
    dpkg-deb -x ${package}_${version}_*.deb .
done
# The packages join their two halves by links to where they would be installed.
root=$room/usr/lib/go-1.19
for link in "$root"/*; do
    if [ -L "$link" ]; then
        target=$(readlink "$link")
        case $target in /*) ln -sfn "$room$target" "$link" ;; esac
    fi
done

cat > null.go <<'GO'
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/rpc/jsonrpc"
	"runtime"
	"time"
)

// Answers the first request with these members, and no other.
func serve(listener net.Listener, members string) {
	connection, _ := listener.Accept()
	lines := bufio.NewScanner(connection)
	lines.Scan()
	lines.Scan()
	fmt.Fprintf(connection, "{%s,\"id\":0}\n", members)
	lines.Scan()
	connection.Close()
}

func try(members string) {
	listener, _ := net.Listen("tcp", "127.0.0.1:0")
	go serve(listener, members)
	client, _ := jsonrpc.Dial("tcp", listener.Addr().String())
	var first, second interface{}
	one := client.Go("first", 1, &first, nil)
	two := client.Go("second", 2, &second, nil)
	<-one.Done
	fmt.Printf("%s: %v", members, one.Error)
	select {
	case <-two.Done:
		fmt.Printf("; the other call: %v", two.Error)
	case <-time.After(time.Second):
		fmt.Print("; the other call waits")
	}
	fmt.Println()
	client.Close()
}

func main() {
	fmt.Println(runtime.Version())
	try(`"result":{},"error":null`)
	try(`"result":null,"error":"no"`)
	try(`"result":null,"error":null`)
	try(`"result":null,"error":{"code":1,"message":"no"}`)
}
GO
GOROOT=$root GOCACHE=$room/cache GOPATH=$room/path GO111MODULE=off HOME=$room "$root/bin/go" run null.go | tee seen
cat > expected <<'EXPECTED'
go1.19.8
"result":{},"error":null: <nil>; the other call waits
"result":null,"error":"no": no; the other call waits
"result":null,"error":null: invalid error <nil>; the other call: invalid error <nil>
"result":null,"error":{"code":1,"message":"no"}: invalid error map[code:1 message:no]; the other call: invalid error map[code:1 message:no]
EXPECTED
diff expected seen
