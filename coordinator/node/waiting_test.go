package node

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// mostWaitingBytes bounds the live heap of a leader for each transaction that waits for
// a participant, with the client that waits for its decision.
const mostWaitingBytes = 4096

// R14: transactions that wait for a participant which never answers cost memory, not
// much of it, and no goroutine.
func TestWaitingTransactionsAreSmall(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory too")
	}
	leader := startBench(t, 1, true)
	r := participants.Registration{Name: "mute", Driver: "mute", Config: []byte("{}")}
	if _, err := leader.PutParticipant(context.Background(), fsm.Operator{}, r); err != nil {
		t.Fatal(err)
	}
	const n = 10000
	var told sync.WaitGroup
	told.Add(n)
	followings := make([]coordinator.Following, n)
	heap, goroutines := settledHeap(), runtime.NumGoroutine()
	for i := range followings {
		err := leader.Coordinator.Start(coordinator.Submission{
			ID: txn.TxID(uuid.Must(uuid.NewV7())), Wait: coordinator.WaitDecision,
			Branches: []txn.Branch{txn.NewBranch("a", payloadOf(i)), txn.NewBranch("mute", payloadOf(i))},
		}, &followings[i], answered(told.Done))
		if err != nil {
			t.Fatal(err)
		}
	}
	awaitStaged(t, leader, n)
	bytes := (settledHeap() - heap) / n
	more := runtime.NumGoroutine() - goroutines
	t.Logf("%d bytes for each that waits, and %d goroutines for all", bytes, more)
	if bytes > mostWaitingBytes {
		t.Errorf("%d bytes for each that waits, want at most %d", bytes, mostWaitingBytes)
	}
	if more > n/20 {
		t.Errorf("%d goroutines for %d that wait", more, n)
	}
	for i := range followings {
		leader.Coordinator.Leave(&followings[i], context.Canceled)
	}
	told.Wait()
}

type answered func()

func (a answered) Answered(coordinator.Result, error) { a() }

func payloadOf(i int) []byte {
	p := make([]byte, 100)
	p[0], p[1] = byte(i), byte(i>>8)
	return p
}

func settledHeap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc) //nolint:gosec // a test's
}

func awaitStaged(t *testing.T, leader *Node, n int) {
	t.Helper()
	await(t, func() bool {
		open := 0
		leader.Machine.Open(func(*txn.Transaction) bool { open++; return true })
		return open == n
	})
}

// mute is a participant that never answers a prepare, whichever way it is asked.
type mute struct{ instant }

func (mute) Open(context.Context, participants.Registration, hclog.Logger) (participants.Participant, error) {
	return mute{}, nil
}

func (mute) Prepare(ctx context.Context, _ participants.Branch) (participants.Vote, error) {
	<-ctx.Done()
	return participants.Vote{}, ctx.Err()
}

func (mute) Start(c participants.Call, _ participants.Listener) (participants.Started, bool) {
	return canceled{}, c.Kind == txn.PrepareBranch
}

type canceled struct{}

func (canceled) Cancel() bool { return true }
