// These tests prove that nothing of the contract is lost between decree and a
// service that speaks JSON over HTTP: the durable store passes the whole
// conformance suite from behind the wire, in the clear and over TLS, and so does
// the example in another language, which is killed and started again.
package httpparticipant_test

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	httpparticipant "github.com/decree-tx/decree/participants/http"
	"github.com/decree-tx/decree/participants/kv"
	"github.com/decree-tx/decree/participants/participanttest"
)

// bank is a kv store behind an HTTP server that can be started again on its
// address. What secures it is a test's choice.
type bank struct {
	path    string
	addr    string
	options httpparticipant.Options
	secure  func(net.Listener) net.Listener

	store *kv.Store
	stop  func()
}

func (b *bank) start(t *testing.T) {
	t.Helper()
	store, err := kv.Open(t.Context(), b.path, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	b.addr, b.store = l.Addr().String(), store
	if b.secure != nil {
		l = b.secure(l)
	}
	server := &http.Server{
		Handler:  httpparticipant.Handler(store, b.options),
		ErrorLog: hclog.NewNullLogger().StandardLogger(nil), // it tells of each connection that a test cuts
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	b.stop = func() {
		if err := server.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-served; err != http.ErrServerClosed {
			t.Errorf("serve: %v", err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// conforms puts the store behind the wire through the suite.
func conforms(t *testing.T, newBank func(t *testing.T) (*bank, httpparticipant.Config)) {
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		b, config := newBank(t)
		b.path, b.addr = filepath.Join(t.TempDir(), "bank.db"), "127.0.0.1:0"
		b.start(t)
		t.Cleanup(func() { b.stop() })
		config.URL += b.addr
		p := openKnown(t, config)
		subject := &participanttest.Subject{
			Participant: p,
			Restart: func(t *testing.T) participants.Participant {
				b.stop()
				b.start(t)
				return p // it finds the service again at the first call
			},
			Effect: func(counter string) []byte {
				return fmt.Appendf(nil, `{"ops": [{"op": "add", "key": %q, "amount": 1}]}`, counter)
			},
			Count:     func(t *testing.T, counter string) int { return countIn(t, b.store, counter) },
			Refused:   func() []byte { return []byte(`{"ops": [{"op": "add", "key": "broke", "amount": -1, "min": 0}]}`) },
			ReadOnly:  func() []byte { return []byte(`{"ops": [{"op": "check", "key": "nobody", "absent": true}]}`) },
			Conflicts: true,
			Second:    func(t *testing.T) participants.Participant { return openKnown(t, config) },
		}
		if b.secure == nil { // else the relay would have to show a certificate
			subject.Cut = func(t *testing.T, arrives bool) participants.Participant {
				return openKnown(t, httpparticipant.Config{URL: cutOnce(t, config.URL, arrives)})
			}
		}
		return subject
	}})
}

func countIn(t *testing.T, store *kv.Store, counter string) int {
	t.Helper()
	value, there, err := store.Get(t.Context(), counter)
	if err != nil {
		t.Fatal(err)
	}
	if !there {
		return 0
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStoreBehindTheWire(t *testing.T) {
	conforms(t, func(*testing.T) (*bank, httpparticipant.Config) {
		return &bank{}, httpparticipant.Config{URL: "http://"}
	})
}
