package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// R11: what lies before the horizon is forgotten, in batches, once the horizon has
// been in the database for a while; nothing younger is, nothing of another
// cluster, and never what is still prepared. What was forgotten stays closed.
func TestForgetting(t *testing.T) {
	b := sharedBench(t)
	r := b.registered(nil)
	p, err := open(r, mustConfig(t, r), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	p.start(pace{
		firstLook: time.Millisecond, mostLook: time.Second, look: patience,
		forget: 10 * time.Millisecond, grace: 50 * time.Millisecond, batch: 3, rest: time.Millisecond,
	})
	t.Cleanup(func() { p.Close() }) //nolint:errcheck // the test is over

	past, horizon := aged(2*time.Hour), aged(time.Hour)
	var ended []participants.Branch
	for i := range 10 {
		br := branchAt(past, one("add", fmt.Sprint("old", i)))
		mustPrepare(t, p, br)
		if i%2 == 0 {
			mustCommit(t, p, br)
		} else {
			mustAbort(t, p, br)
		}
		ended = append(ended, br)
	}
	waiting, young, elsewhere := branchAt(past, one("add", "waiting")), branchOf(one("add", "young")), branchAt(past, one("add", "elsewhere"))
	elsewhere.Cluster = cluster + "x"
	mustPrepare(t, p, waiting)
	mustPrepare(t, p, young)
	mustCommit(t, p, young)
	mustPrepare(t, p, elsewhere)
	mustCommit(t, p, elsewhere)

	messenger := branchOf(nil)
	messenger.Horizon = horizon
	mustAbort(t, p, messenger)
	eventually(t, "the old rows are gone", func() bool { return b.ask("SELECT count(*) FROM decree_branch") == "3" })

	for _, br := range ended {
		mustRefuse(t, p, br, "older than the retention horizon")
		mustRefuse(t, opened(t, r), br, "older than the retention horizon")
	}
	mustCommit(t, p, young)
	mustCommit(t, p, elsewhere)
	mustPrepare(t, p, waiting)
	mustCommit(t, p, waiting)
	mustCommit(t, p, waiting)
	if n := b.count("waiting"); n != 1 {
		t.Errorf("what was prepared before the horizon counts %d, want 1", n)
	}
}

func aged(d time.Duration) txn.Time { return txn.Time(time.Now().Add(-d).UnixNano()) }

func branchAt(at txn.Time, payload []byte) participants.Branch {
	br := branchOf(payload)
	br.TxID = participanttest.NewTxID(at)
	return br
}
