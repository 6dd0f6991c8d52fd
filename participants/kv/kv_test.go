package kv

// The store passes the conformance suite, through the driver as a node opens it,
// with a real restart between close and open.

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

func TestConformance(t *testing.T) {
	participanttest.Run(t, participanttest.Harness{Start: func(t *testing.T) *participanttest.Subject {
		driver := new(Driver)
		config := fmt.Appendf(nil, `{"path": %q}`, filepath.Join(t.TempDir(), "bank.db"))
		var current participants.Participant
		open := func(t *testing.T) participants.Participant {
			p, err := driver.Open(t.Context(), participants.Registration{Name: "bank", Driver: "kv", Config: config}, hclog.NewNullLogger())
			if err != nil {
				t.Fatal(err)
			}
			current = p
			return p
		}
		shut := func(t *testing.T) {
			if err := current.Close(); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { shut(t) })
		return &participanttest.Subject{
			Participant: open(t),
			Restart: func(t *testing.T) participants.Participant {
				shut(t)
				return open(t)
			},
			Effect: func(counter string) []byte {
				return fmt.Appendf(nil, `{"ops": [{"op": "add", "key": %q, "amount": 1}]}`, counter)
			},
			Count: func(t *testing.T, counter string) int {
				value, ok, err := current.(*user).Get(t.Context(), counter)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					return 0
				}
				n, err := strconv.Atoi(value)
				if err != nil {
					t.Fatal(err)
				}
				return n
			},
			Refused:   func() []byte { return []byte(`{"ops": [{"op": "add", "key": "broke", "amount": -1, "min": 0}]}`) },
			ReadOnly:  func() []byte { return []byte(`{"ops": [{"op": "check", "key": "nobody", "absent": true}]}`) },
			Conflicts: true,
		}
	}})
}

// openStore opens a store that the test closes.
func openStore(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(context.Background(), path, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newStore(t testing.TB) *Store {
	return openStore(t, filepath.Join(t.TempDir(), "kv.db"))
}

// branch is a new branch of cluster "c" with these operations.
func branch(ops string) participants.Branch {
	payload := []byte(`{"ops": [` + ops + `]}`)
	return participants.Branch{
		Cluster: "c",
		TxID:    participanttest.NewTxID(txn.Time(time.Now().UnixNano())),
		Number:  1,
		Epoch:   1,
		Digest:  txn.NewBranch("kv", payload).Digest,
		Payload: payload,
	}
}

func prepare(t testing.TB, s *Store, b participants.Branch) {
	t.Helper()
	v, err := s.Prepare(t.Context(), b)
	if err != nil || v.Kind != txn.VoteCommit {
		t.Fatalf("prepare %s: %s %q, %v", b.Payload, v.Kind, v.Reason, err)
	}
}

func refused(t testing.TB, s *Store, b participants.Branch) (reason string) {
	t.Helper()
	v, err := s.Prepare(t.Context(), b)
	if err != nil || v.Kind != txn.VoteAbort {
		t.Fatalf("prepare %s: %s, %v; want a no", b.Payload, v.Kind, err)
	}
	return v.Reason
}

// do runs a transaction of one branch.
func do(t testing.TB, s *Store, ops string) {
	t.Helper()
	b := branch(ops)
	prepare(t, s, b)
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func value(t testing.TB, s *Store, key string) string {
	t.Helper()
	v, ok, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return "(absent)"
	}
	return v
}

func isHeuristic(err error, want txn.Receipt) bool {
	var h *participants.Heuristic
	return errors.As(err, &h) && h.Receipt == want
}
