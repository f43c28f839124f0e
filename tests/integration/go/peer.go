// A caller and a service on Go's net/rpc: its own net/rpc/jsonrpc, and go-msgpack.
//
// usage: peer jsonrpc|msgpack call ADDRESS    calls the conformance worker; prints what it says, a line a call
//
//	peer jsonrpc|msgpack serve ADDRESS   serves Service until it is killed; prints "serving"
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"sync"

	"github.com/hashicorp/go-msgpack/codec"
)

// Pair is what net/rpc has for params: one value.
type Pair struct {
	A, B int
	Text string
}

// Service has methods as net/rpc wants them.
type Service struct{}

// Add adds.
func (Service) Add(pair Pair, sum *int) error {
	*sum = pair.A + pair.B
	return nil
}

// Echo answers its param.
func (Service) Echo(text string, back *string) error {
	*back = text
	return nil
}

// Fail fails.
func (Service) Fail(text string, _ *int) error {
	return fmt.Errorf("no %s", text)
}

// MessagePack's handle as rpc's peers want it: text as text.
func handle() *codec.MsgpackHandle {
	return &codec.MsgpackHandle{RawToString: true}
}

func client(protocol string, connection io.ReadWriteCloser) *rpc.Client {
	if protocol == "jsonrpc" {
		return jsonrpc.NewClient(connection)
	}
	return rpc.NewClientWithCodec(codec.MsgpackSpecRpc.ClientCodec(connection, handle()))
}

func call(protocol, address string) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	peer := client(protocol, connection)
	defer peer.Close()
	var text string
	var pair Pair
	fmt.Println(peer.Call("echo", "naïve ✓", &text), text)
	fmt.Println(peer.Call("echo", Pair{1, 2, "three"}, &pair), pair)
	fmt.Println(peer.Call("nope", 1, &text))
	fmt.Println(peer.Call("fail", 5, &text))
	pair = Pair{}
	fmt.Println(peer.Call("echo", nil, &pair), pair)
	var difference float64
	fmt.Println(peer.Call("subtract", map[string]int{"minuend": 5, "subtrahend": 3}, &difference), difference)

	var group sync.WaitGroup
	var lock sync.Mutex
	right := 0
	for i := 0; i < 200; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			var back int
			if peer.Call("echo", i, &back) == nil && back == i {
				lock.Lock()
				right++
				lock.Unlock()
			}
		}(i)
	}
	group.Wait()
	fmt.Println(right, "right")
}

func serve(protocol, address string) {
	if err := rpc.Register(Service{}); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("serving")
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		if protocol == "jsonrpc" {
			go rpc.ServeCodec(jsonrpc.NewServerCodec(connection))
		} else {
			go rpc.ServeCodec(codec.MsgpackSpecRpc.ServerCodec(connection, handle()))
		}
	}
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: peer jsonrpc|msgpack call|serve ADDRESS")
	}
	if os.Args[2] == "call" {
		call(os.Args[1], os.Args[3])
	} else {
		serve(os.Args[1], os.Args[3])
	}
}
