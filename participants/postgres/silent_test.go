package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/decree-tx/decree/participants"
)

// mute stands before a server's socket and, until its mouth is opened, lets clients
// log in and nothing more: they are neither answered nor refused. It returns the
// directory of its own socket.
func mute(t testing.TB, server string) (dir string, open *atomic.Bool) {
	t.Helper()
	dir, err := os.MkdirTemp("", "mute-") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, filepath.Base(server)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listener.Close()  //nolint:errcheck // the test is over
		os.RemoveAll(dir) //nolint:errcheck // nothing follows from it
	})
	open = &atomic.Bool{}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("unix", server)
			if err != nil {
				client.Close() //nolint:errcheck // the client sees that nobody is there
				continue
			}
			go func() {
				io.Copy(client, upstream) //nolint:errcheck // it ends with the connection
				client.Close()            //nolint:errcheck // the same
			}()
			go func(heard bool) {
				if !heard {
					startup := make([]byte, 8192)
					n, _ := client.Read(startup) //nolint:errcheck // nothing was read then
					upstream.Write(startup[:n])  //nolint:errcheck // the client sees nothing, as ever
					io.Copy(io.Discard, client)  //nolint:errcheck // it ends with the connection
				} else {
					io.Copy(upstream, client) //nolint:errcheck // it ends with the connection
				}
				upstream.Close() //nolint:errcheck // the same
			}(open.Load())
		}
	}()
	return dir, open
}

// R10 and R14: a server that falls silent while connections are being made does not
// keep their places in the pool. Once it speaks again, what was held up is delivered.
func TestSilentServerKeepsNoPlace(t *testing.T) {
	b := sharedBench(t)
	r := b.registered(nil)
	dir, open := mute(t, filepath.Join(b.server.Dir(), ".s.PGSQL.5432"))
	silent := registrationOf(t, strings.ReplaceAll(b.server.DSN(b.database), b.server.Dir(), dir)+" connect_timeout=1",
		map[string]any{"max_connections": minConnections})
	silent.Identity = r.Identity
	br := branchOf(one("add", "x"))
	mustPrepare(t, opened(t, r), br)
	p := opened(t, silent)
	for range minConnections {
		// Each leaves a connection behind that the pool goes on making.
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := p.Commit(ctx, phaseTwo(br))
		cancel()
		var h *participants.Heuristic
		if err == nil || errors.As(err, &h) {
			t.Fatalf("commit: %v, want an error that asks to try again", err)
		}
	}
	open.Store(true)
	eventually(t, "the commit is delivered", func() bool { return p.Commit(within30s(t), phaseTwo(br)) == nil })
	if n := b.count("x"); n != 1 {
		t.Errorf("counter x is %d, want 1", n)
	}
}
