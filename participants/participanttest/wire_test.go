package participanttest

// What is proven of the wire, before anything is proven with it: it changes
// nothing until told to, and a cut loses what it says it loses.

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"testing"
)

// echo is a resource that answers each line with the same line, and tells what it
// has read.
func echo(t *testing.T, network string) (address string, heard <-chan string) {
	where := "127.0.0.1:0"
	if network == "unix" {
		where = filepath.Join(t.TempDir(), "echo")
	}
	l, err := net.Listen(network, where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // it was only for the test
	lines := make(chan string, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close() //nolint:errcheck // the same
				for r := bufio.NewReader(c); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					lines <- line
					fmt.Fprint(c, line) //nolint:errcheck // the client may have gone
				}
			}()
		}
	}()
	return l.Addr().String(), lines
}

func TestWire(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			address, heard := echo(t, network)
			w := NewWire(t, network, address)
			dial := func() (say func(string), read func() (string, error)) {
				c, err := net.Dial(network, w.Addr())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() }) //nolint:errcheck // it may be cut
				r := bufio.NewReader(c)
				return func(line string) { fmt.Fprintln(c, line) }, func() (string, error) { return r.ReadString('\n') } //nolint:errcheck // reading tells
			}
			echoed := func(say func(string), read func() (string, error)) {
				t.Helper()
				say("hello")
				if got, err := read(); got != "hello\n" || err != nil {
					t.Fatalf("heard %q, %v, want an echo", got, err)
				}
				if got := <-heard; got != "hello\n" {
					t.Fatalf("the resource heard %q", got)
				}
			}
			cut := func(read func() (string, error)) {
				t.Helper()
				if got, err := read(); got != "" || err == nil {
					t.Fatalf("heard %q, %v, want a cut connection", got, err)
				}
			}

			say, read := dial()
			echoed(say, read)

			w.CutAt("stop here", false)
			echoed(say, read)
			say("now stop here")
			cut(read)

			say, read = dial()
			echoed(say, read) // the lost line was not heard, and a later one is
			w.CutAt("stop here", true)
			say("now stop here")
			cut(read)
			if got := <-heard; got != "now stop here\n" {
				t.Fatalf("the resource heard %q, want the last request", got)
			}

			say, read = dial()
			echoed(say, read)
			say("stop here") // once is once
			if _, err := read(); err != nil {
				t.Fatal(err)
			}
			w.Cut()
			cut(read)
		})
	}
}
