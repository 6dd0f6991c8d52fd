package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/coordinator/node"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// What is proven here: a node's metrics say what it did and how it stands, in both of
// Prometheus' formats, and its page's figures are those of the same histograms.

const patience = time.Minute // of waits for events

// start runs a node alone in its cluster, with one participant, and its metrics.
func start(t *testing.T) (*node.Node, *Metrics) {
	t.Helper()
	m := New(Build{Version: "v1", Revision: "abc", Go: "go1"})
	n, err := node.Open(t.Context(), node.Config{
		Cluster: cluster.Config{
			ID: "n1", Bind: "127.0.0.1:0", Peers: []cluster.Peer{{ID: "n1"}},
			Storage: clustertest.NewDisk("disk", 1), OnLogWrite: m.LogWritten,
			Exit: func(err error) { t.Errorf("exit: %v", err) },
		},
		Coordinator: coordinator.Config{Meter: m.Meter(), OnDamage: m.Damaged},
		Drivers:     participants.Drivers{"fake": participanttest.Fakes{"a": participanttest.NewFake()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := m.Observe(n); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, err = n.PutParticipant(ctx, fsm.Operator{}, participants.Registration{Name: "a", Driver: "fake", Config: []byte("{}")})
		if !errors.Is(err, coordinator.ErrNotLeader) {
			break
		}
		<-time.After(time.Millisecond) // it is being elected
	}
	if err != nil {
		t.Fatalf("register a participant: %v", err)
	}
	return n, m
}

func submit(t *testing.T, n *node.Node, participant string) (coordinator.Result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return n.Coordinator.Submit(ctx, coordinator.Submission{
		ID: txn.TxID(uuid.Must(uuid.NewV7())), Branches: []txn.Branch{txn.NewBranch(participant, []byte("x"))},
	})
}

func scrape(t *testing.T, m *Metrics, accept string) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestANodeTellsWhatItDid(t *testing.T) {
	n, m := start(t)
	for range 3 {
		if r, err := submit(t, n, "a"); err != nil || r.Decision() != txn.Commit {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if _, err := submit(t, n, "nobody"); err == nil {
		t.Fatal("a transaction with nobody was admitted")
	}
	got := scrape(t, m, "")
	for _, want := range []string{
		`decree_build_info{goversion="go1",revision="abc",version="v1"} 1`,
		`decree_transactions_total{outcome="committed",reason="none"} 3`,
		`decree_transactions_total{outcome="aborted",reason="vote"} 0`,
		`decree_transaction_seconds_count{outcome="committed"} 3`,
		`decree_transaction_phase_seconds_count{phase="prepare"} 3`,
		`decree_transaction_phase_seconds_count{phase="decision"} 3`,
		`decree_transaction_phase_seconds_count{phase="delivery"} 3`,
		`decree_submissions_refused_total{reason="unknown-participant"} 1`,
		`decree_participant_calls_total{operation="prepare",participant="a",result="yes"} 3`,
		`decree_participant_calls_total{operation="commit",participant="a",result="done"} 3`,
		`decree_participant_calls_total{operation="commit",participant="a",result="failed"} 0`,
		`decree_participant_call_seconds_count{operation="prepare",participant="a"} 3`,
		`decree_participant_deliveries_pending{participant="a"} 0`,
		`decree_participant_down{participant="a"} 0`,
		`decree_leader 1`, `decree_leader_known 1`, `decree_members 1`, `decree_voters 1`,
		`decree_damaged_transactions 0`,
		`decree_log_apply_lag_entries 0`,
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, some := range []string{"decree_term", "decree_log_entries_applied_total", "decree_log_commands_applied_total", "decree_log_write_seconds_count"} {
		if strings.Contains(got, some+" 0\n") || !strings.Contains(got, some+" ") {
			t.Errorf("%s is nothing", some)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// An example is a txid that a log and a trace know too; nothing else may be a label.
func TestExamplesNameATransaction(t *testing.T) {
	_, m := start(t)
	id := txn.TxID(uuid.Must(uuid.NewV7()))
	for _, timing := range m.meter.timings() {
		timing.wanting.Store(true)
	}
	for range 2 { // the second is no example
		m.Meter().Decided(coordinator.Decided{TxID: id, Decision: txn.Commit, Preparing: time.Second, Deciding: time.Millisecond})
	}
	got := scrape(t, m, "application/openmetrics-text")
	want := fmt.Sprintf(`decree_transaction_seconds_bucket{outcome="committed",le="1.5"} 2 # {txid="%s"} 1.001`, id)
	if !strings.Contains(got, want) {
		t.Errorf("%s is missing in:\n%s", want, got)
	}
}

func TestUnregisteredParticipantsAreForgotten(t *testing.T) {
	m := New(Build{})
	m.Meter().Participant("a").Called(txn.PrepareBranch, coordinator.CallYes, time.Second)
	if got := scrape(t, m, ""); !strings.Contains(got, `participant="a"`) {
		t.Fatal("a is not counted")
	}
	m.Meter().Unregistered("a")
	if got := scrape(t, m, ""); strings.Contains(got, `participant="a"`) {
		t.Errorf("a is still there:\n%s", got)
	}
	m.Meter().Participant("a").Called(txn.PrepareBranch, coordinator.CallYes, time.Second)
	if got := scrape(t, m, ""); !strings.Contains(got, `decree_participant_calls_total{operation="prepare",participant="a",result="yes"} 1`) {
		t.Errorf("a is not counted again:\n%s", got)
	}
}

func TestHeuristicsAreCounted(t *testing.T) {
	m := New(Build{})
	m.Damaged(coordinator.Damage{Participant: "a", Receipt: txn.HeuristicAbort})
	if got := scrape(t, m, ""); !strings.Contains(got, `decree_heuristics_total{participant="a",receipt="heuristic-abort"} 1`) {
		t.Error(got)
	}
}

// The window moves: what is older than ten looks no longer counts.
func TestPulse(t *testing.T) {
	m := New(Build{})
	began := m.pulse.looks[0].at
	if got := m.Pulse(); got.Window != 0 || got.Transactions != 0 {
		t.Errorf("before anything: %+v", got)
	}
	for i := range 100 {
		d := coordinator.Decided{Decision: txn.Commit, Preparing: 7 * time.Millisecond}
		switch {
		case i < 2:
			d.Preparing = 9 * time.Second
		case i < 20:
			d = coordinator.Decided{Decision: txn.Abort, Reason: txn.ReasonVote, Preparing: 7 * time.Millisecond}
		}
		m.Meter().Decided(d)
	}
	for i := range beats {
		m.pulse.take(began.Add(time.Duration(i+1) * beat))
	}
	got := m.Pulse()
	if got.Window != beats*beat || got.Transactions != 100 || got.PerSecond != 10 || got.AbortShare != .18 {
		t.Errorf("%+v, want 100 in ten seconds, 18 of them aborted", got)
	}
	if got.P50 <= 6*time.Millisecond || got.P50 > 8*time.Millisecond || got.P99 <= 5*time.Second || got.P99 > 10*time.Second {
		t.Errorf("p50 %s and p99 %s, want about 7ms and 9s", got.P50, got.P99)
	}
	m.Meter().Decided(coordinator.Decided{Decision: txn.Commit, Preparing: 2 * time.Minute}) // past the last bound
	m.pulse.take(began.Add((beats + 1) * beat))
	if got := m.Pulse(); got.Transactions != 1 || got.PerSecond != .1 || got.AbortShare != 0 || got.P99 != time.Minute {
		t.Errorf("a second later: %+v", got)
	}
}

// What Raft counts arrives under the names that it gives.
func TestRaftIsObserved(t *testing.T) {
	m := New(Build{})
	if err := m.ObserveRaft(); err != nil {
		t.Fatal(err)
	}
	n, _ := start(t)
	if r, err := submit(t, n, "a"); err != nil || r.Decision() != txn.Commit {
		t.Fatalf("%+v, %v", r, err)
	}
	got := scrape(t, m, "")
	for _, want := range []string{
		"# TYPE raft_commitTime summary", "# TYPE raft_apply_total counter", "# TYPE raft_peers gauge", "raft_peers 1\n",
		"# TYPE raft_fsm_applyBatch summary",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
}

// Counting allocates nothing: it comes with every transaction.
func TestCountingAllocatesNothing(t *testing.T) {
	m := New(Build{}).Meter()
	p := m.Participant("a")
	id := txn.TxID{1}
	allocated := testing.AllocsPerRun(100, func() {
		p.Called(txn.PrepareBranch, coordinator.CallYes, time.Millisecond)
		m.Decided(coordinator.Decided{TxID: id, Decision: txn.Commit, Preparing: time.Millisecond})
		p.Called(txn.CommitBranch, coordinator.CallDone, time.Millisecond)
		m.Delivered(id, time.Millisecond)
	})
	if allocated != 0 {
		t.Errorf("%v allocations a transaction", allocated)
	}
}

// BenchmarkMeter is what counting one transaction of two branches takes.
func BenchmarkMeter(b *testing.B) {
	m := New(Build{}).Meter()
	p := m.Participant("a")
	id := txn.TxID{1}
	for b.Loop() {
		for range 2 {
			p.Called(txn.PrepareBranch, coordinator.CallYes, time.Millisecond)
			p.Called(txn.CommitBranch, coordinator.CallDone, time.Millisecond)
		}
		m.Decided(coordinator.Decided{TxID: id, Decision: txn.Commit, Preparing: time.Millisecond})
		m.Delivered(id, time.Millisecond)
	}
}

// Certificates are replaced while a node runs.
func TestCertificatesAreAskedForEachTime(t *testing.T) {
	m := New(Build{})
	until := time.Unix(1000, 0)
	err := m.ObserveCertificates(func() []Certificate {
		return []Certificate{{"certificate", "CN=n1", until}, {"ca", "CN=old", until.Add(time.Hour)}, {"ca", "CN=old", until}}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1000, 2000} {
		until = time.Unix(at, 0)
		got := scrape(t, m, "")
		for _, use := range []string{`subject="CN=n1",use="certificate"`, `subject="CN=old",use="ca"`} {
			if want := fmt.Sprintf("decree_certificate_expiry_timestamp_seconds{%s} %d\n", use, at); !strings.Contains(got, want) {
				t.Errorf("%s is missing in:\n%s", want, got)
			}
		}
	}
}
