package branch_test

// These tests prove that the file does not grow with what is over, nor with what
// strangers send (rules R11 and R14).

import (
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"google.golang.org/grpc/codes"

	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	"github.com/decree-tx/decree/transport/branch"
)

// R14: what is open is bounded; what was ended makes room.
func TestOpenBranchesAreBounded(t *testing.T) {
	t.Run("local", func(t *testing.T) {
		testOpenBranchesAreBounded(t, newLocal(t, newFile(t), &inFile{}, branch.Config{MaxOpen: 2}))
	})
	t.Run("foreign", func(t *testing.T) {
		testOpenBranchesAreBounded(t, newForeign(t, &script{}, branch.Config{MaxOpen: 2}))
	})
}

func testOpenBranchesAreBounded(t *testing.T, s *branch.Server) {
	t.Helper()
	a, b, c := newBranch(1), newBranch(1), newBranch(1)
	votes(t, s, a, "x", "COMMIT")
	votes(t, s, b, "x", "COMMIT")
	votes(t, s, b, "x", "COMMIT")
	_, err := prepare(t, s, c, "x")
	fails(t, "a third branch", err, codes.ResourceExhausted, "2")
	aborts(t, s, newBranch(1), done) // ends are always heard
	commits(t, s, a, done)
	votes(t, s, c, "x", "COMMIT")
	_, err = prepare(t, s, newBranch(1), "x")
	fails(t, "a third branch", err, codes.ResourceExhausted, "2")
	aborts(t, s, b, done)
	aborts(t, s, c, done)
	votes(t, s, newBranch(1), "x", "COMMIT")
}

// R14: clusters come and go; their books do not, so they are few.
func TestClustersAreBounded(t *testing.T) {
	s := newLocal(t, newFile(t), &inFile{}, branch.Config{})
	for i := range 17 {
		b := newBranch(1)
		b.Cluster = fmt.Sprint("cluster", i)
		got, err := prepare(t, s, b, "x")
		if i < 16 && (err != nil || got != "COMMIT") {
			t.Fatalf("cluster %d: %q, %v", i, got, err)
		}
		if i == 16 {
			fails(t, "one cluster too many", err, codes.ResourceExhausted, "clusters")
		}
	}
}

// R11: what lies before the horizon is forgotten, a bounded number at a time, and
// what is not, is kept. The file does not grow for ever.
func TestHorizonForgets(t *testing.T) {
	db := newFile(t)
	s := newLocal(t, db, &inFile{}, branch.Config{})
	const many = 100
	for range many {
		b := newBranch(1)
		votes(t, s, b, "x", "COMMIT")
		commits(t, s, b, done)
	}
	waiting := newBranch(1)
	votes(t, s, waiting, "x", "COMMIT")
	records := func() (n int) {
		_ = db.View(func(tx *bbolt.Tx) error {
			n = tx.Bucket([]byte("decree")).Bucket([]byte("clusters")).Bucket([]byte("c1")).Bucket([]byte("done")).Stats().KeyN
			return nil
		})
		return n
	}
	if n := records(); n != many {
		t.Fatalf("%d records, want %d", n, many)
	}
	year := int64(1 << 55)
	messenger := func() {
		b := newBranch(1)
		b.Horizon = newHorizon(t, b) + year
		aborts(t, s, b, done) // before the horizon: it leaves no tombstone
	}
	messenger()
	if n := records(); n == 0 || n == many {
		t.Errorf("%d records after one message, want some forgotten and not all at once", n)
	}
	for range many {
		messenger()
	}
	if n := records(); n != 0 {
		t.Errorf("%d records are left", n)
	}
	commits(t, s, waiting, done) // R10: what is open is not forgotten
}

// newHorizon is the time at which a branch's txid was made.
func newHorizon(t *testing.T, b *participantv1.Branch) int64 {
	t.Helper()
	var ms int64
	if _, err := fmt.Sscanf(strings.ReplaceAll(b.GetTxid()[:13], "-", ""), "%x", &ms); err != nil {
		t.Fatal(err)
	}
	return ms * 1_000_000
}
