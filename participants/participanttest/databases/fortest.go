package databases

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
)

// TB is what the functions for tests need of testing.TB.
type TB interface {
	Helper()
	Cleanup(func())
	Context() context.Context
	Failed() bool
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
}

// advice is what a test says that cannot run. It never passes silently.
const advice = "run scripts/test-databases.sh, or make test-short to leave out the tests against databases"

// ForTest starts a server for one test, which closes it at its end. Without the
// server's programs the test fails, or is skipped under -short.
func ForTest(t TB, e Engine, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), e, o)
	refuse(t, short(), err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of %s ends so:\n%s", e, s.Log())
		}
		if err := s.Close(); err != nil {
			t.Errorf("close %s: %v", e, err)
		}
	})
	return s
}

// Require is for a test of something that starts servers by itself: without their
// programs it fails the test, or skips it under -short.
func Require(t TB, engines ...Engine) {
	t.Helper()
	for _, e := range engines {
		_, err := find(e, 0)
		refuse(t, short(), err)
	}
}

// short reports whether the test runs under go test -short.
func short() bool {
	f := flag.Lookup("test.short")
	return f != nil && f.Value.String() == "true"
}

// refuse ends a test whose server could not be started. Only what is missing, and
// only under -short, is a reason to skip it.
func refuse(t TB, short bool, err error) {
	t.Helper()
	switch {
	case err == nil:
	case !errors.Is(err, ErrMissing):
		t.Fatalf("%v", err)
	case short:
		t.Skipf("%v; make test runs this test too", err)
	default:
		t.Fatalf("%v: %s", err, advice)
	}
}

// A test process has one server of each engine for the tests that do it no harm.
// This is the package's only variable state: a package of tests has no other
// place to share a thing from.
var (
	sharedMu sync.Mutex
	shared   = map[Engine]*Server{}
)

// Shared is the test process's own server of an engine, started when it is first
// asked for. Tests that share it use databases of their own (FreshDatabase) and
// neither kill nor suspend it. Run closes it; where a package has no TestMain, its
// guard does when the process ends.
func Shared(t TB, e Engine) *Server {
	t.Helper()
	sharedMu.Lock()
	defer sharedMu.Unlock()
	s, ok := shared[e]
	if !ok {
		var err error
		s, err = Start(t.Context(), e, Options{})
		refuse(t, short(), err)
		shared[e] = s
	}
	return s
}

// Run is for TestMain: it runs the tests and then closes the shared servers.
func Run(m interface{ Run() int }) int {
	code := m.Run()
	sharedMu.Lock()
	defer sharedMu.Unlock()
	for e, s := range shared {
		if err := s.Close(); err != nil {
			fmt.Fprintf(os.Stderr, "close %s: %v\n", e, err)
			code = max(code, 1)
		}
		delete(shared, e)
	}
	return code
}

// FreshDatabase makes an empty database with a name of its own on the server, and
// returns the name. It stays until the server goes.
func FreshDatabase(t TB, s *Server) string {
	t.Helper()
	var random [6]byte
	rand.Read(random[:]) //nolint:errcheck // it never fails
	name := "test_" + hex.EncodeToString(random[:])
	if err := s.Create(t.Context(), name); err != nil {
		t.Fatalf("%v", err)
	}
	return name
}
