package coordinator

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

// rig is a coordinator over a log in memory and fakes, in a bubble of virtual
// time. Its log runs the very txn.Step that a node runs.
type rig struct {
	t     testing.TB
	log   *memLog
	fakes participanttest.Fakes
	c     *Coordinator

	begins bool // clients have no goroutines that wait
	epoch  uint64
	cancel context.CancelFunc
	ended  chan struct{}
	nextID byte
}

// run plays a story with participants a, b and c in a bubble, and checks at its
// end that every call kept the contract. It plays it three times: calls to the
// participants have a goroutine each, or they and the clients have none, or either.
func run(t *testing.T, cfg Config, story func(r *rig)) {
	t.Helper()
	ways := map[string]func(participants.Driver) participants.Driver{
		"calls":  func(d participants.Driver) participants.Driver { return d },
		"starts": func(d participants.Driver) participants.Driver { return participanttest.Starting{Driver: d} },
		"sometimes": func(d participants.Driver) participants.Driver {
			return participanttest.Starting{Driver: d, Sometimes: true}
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) { play(t, cfg, name == "starts", way, story) })
	}
}

func play(t *testing.T, cfg Config, begins bool, way func(participants.Driver) participants.Driver, story func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, begins: begins, log: newMemLog(), fakes: participanttest.Fakes{}}
		for _, name := range []string{"a", "b", "c"} {
			r.fakes[name] = participanttest.NewFake()
			r.log.participants[name] = participants.Registration{Name: name, Driver: "fake", Revision: 1}
		}
		logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: testWriter{t}})
		var err error
		r.c, err = New(cfg, r.log, r.log, participants.Drivers{"fake": way(r.fakes)}, logger)
		if err != nil {
			t.Fatal(err)
		}
		r.lead()
		story(r)
		r.depose()
		r.log.stop()
		for name, f := range r.fakes {
			f.Verify(t)
			if err := f.Close(); err != nil {
				t.Errorf("closing fake %s: %v", name, err)
			}
		}
	})
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// lead begins a new term and returns when the coordinator drives it.
func (r *rig) lead() {
	r.epoch++
	r.log.lead(r.epoch)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan struct{})
	go func() {
		defer close(r.ended)
		r.c.Lead(ctx, r.epoch)
	}()
	synctest.Wait()
}

// depose ends the term and waits until its work has ended.
func (r *rig) depose() {
	r.cancel()
	<-r.ended
}

// id makes a txid of this moment.
func (r *rig) id() txn.TxID {
	r.nextID++
	return idAt(time.Now(), r.nextID)
}

func idAt(at time.Time, n byte) (id txn.TxID) {
	binary.BigEndian.PutUint64(id[:8], uint64(at.UnixMilli())<<16)
	id[6], id[8], id[15] = 0x70, 0x80, n
	return id
}

// transfer is a submission with a branch at each participant named.
func transfer(id txn.TxID, names ...string) Submission {
	s := Submission{ID: id, Timeout: 10 * time.Second}
	for _, n := range names {
		s.Branches = append(s.Branches, txn.NewBranch(n, []byte("work for "+n)))
	}
	return s
}

// submission is a Submit under way.
type submission struct {
	result Result
	err    error
	done   chan struct{}
}

func (r *rig) submit(ctx context.Context, s Submission) *submission {
	w := &submission{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.result, w.err = r.run(ctx, s)
	}()
	return w
}

// run is Submit, in one way or the other.
func (r *rig) run(ctx context.Context, s Submission) (Result, error) {
	if r.begins {
		return r.begin(ctx, s)
	}
	return r.c.Submit(ctx, s)
}

// begin is Submit by way of Start.
func (r *rig) begin(ctx context.Context, s Submission) (Result, error) {
	var f Following
	told := make(answers, 1)
	if err := r.c.Start(s, &f, told); err != nil {
		return Result{}, err
	}
	defer context.AfterFunc(ctx, func() { r.c.Leave(&f, context.Cause(ctx)) })()
	a := <-told
	return a.result, a.err
}

type answered struct {
	result Result
	err    error
}

type answers chan answered

func (a answers) Answered(r Result, err error) { a <- answered{r, err} }

func (w *submission) answered() bool {
	synctest.Wait()
	return isClosed(w.done)
}

// stored is what the log holds of a transaction once all is quiet; nil when it
// does not know it.
func (r *rig) stored(id txn.TxID) *txn.Transaction {
	synctest.Wait()
	tx, _ := r.log.Transaction(id)
	return tx
}

// written counts the commands of a type in the log.
func (r *rig) written(command string) int {
	synctest.Wait()
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	return r.log.entries[command]
}

// driven counts the transactions in the term's books.
func (r *rig) driven() int {
	synctest.Wait()
	t := r.c.current()
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.live)
}

func (r *rig) register(name string, revision uint64) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.participants[name] = participants.Registration{Name: name, Driver: "fake", Revision: revision}
}

func (r *rig) revision(name string) uint64 {
	t := r.c.current()
	t.mu.Lock()
	door := t.lane(name).door
	t.mu.Unlock()
	door.mu.RLock()
	defer door.mu.RUnlock()
	return door.revision
}

func (r *rig) mustDecide(res Result, err error, want txn.Decision) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("got error %v, want %s", err, want)
	}
	if res.Decision() != want {
		r.t.Fatalf("got %s (%s), want %s", res.Decision(), res.Transaction.Reason, want)
	}
}

func (r *rig) branch(id txn.TxID, number int) participants.Branch {
	return participants.Branch{Cluster: r.log.ClusterID(), TxID: id, Number: number}
}

// wantCalls checks the calls that a participant received for a transaction, in
// order.
func (r *rig) wantCalls(name string, id txn.TxID, want ...participanttest.Op) {
	r.t.Helper()
	var got []participanttest.Op
	for _, c := range r.fakes[name].Calls() {
		if c.Branch.TxID == id && c.Op != participanttest.Recover {
			got = append(got, c.Op)
		}
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("%s was called %v, want %v", name, got, want)
	}
}

// memLog is a Log and a View: one replica of the state, one entry on its way at a
// time, which takes latency.
type memLog struct {
	latency time.Duration
	wake    chan struct{}
	quit    chan struct{}
	stopped chan struct{}

	mu           sync.Mutex
	queue        []queued
	state        map[txn.TxID]*txn.Transaction
	participants map[string]participants.Registration
	cluster      txn.Cluster
	index        uint64
	entries      map[string]int // written, by type of command
	whileLooking func()         // where set, called by a look at a participant
	// fate tells what becomes of a command; nil means that all is well.
	fate    func(txn.Command) fate
	barrier func() error // nil means that barriers pass
}

type queued struct {
	epoch uint64
	c     txn.Command
	done  func(*txn.Transaction, error)
}

// fate of a command: whether it is applied, and the error that its proposer gets.
type fate struct {
	lost bool
	err  error
}

func newMemLog() *memLog {
	l := &memLog{
		latency:      time.Millisecond,
		wake:         make(chan struct{}, 1),
		quit:         make(chan struct{}),
		stopped:      make(chan struct{}),
		state:        map[txn.TxID]*txn.Transaction{},
		participants: map[string]participants.Registration{},
		entries:      map[string]int{},
	}
	go l.run()
	return l
}

func (l *memLog) stop() {
	close(l.quit)
	<-l.stopped
}

func (l *memLog) lead(epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, err := l.cluster.Lead(txn.Header{Epoch: epoch, Time: txn.Time(time.Now().UnixNano())})
	if err != nil {
		panic(err)
	}
	l.cluster = next
}

func (l *memLog) Propose(epoch uint64, c txn.Command, done func(*txn.Transaction, error)) {
	l.mu.Lock()
	l.queue = append(l.queue, queued{epoch, c, done})
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *memLog) run() {
	defer close(l.stopped)
	for {
		select {
		case <-l.wake:
		case <-l.quit:
			return
		}
		const moment = time.Nanosecond
		time.Sleep(moment) // virtual: what is proposed in one moment shares an entry
		l.mu.Lock()
		batch := l.queue
		l.queue = nil
		latency := l.latency
		l.mu.Unlock()
		time.Sleep(latency - moment)
		for _, q := range batch {
			tx, err := l.apply(q)
			q.done(tx, err)
		}
	}
}

func (l *memLog) apply(q queued) (*txn.Transaction, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var f fate
	if l.fate != nil {
		f = l.fate(q.c)
	}
	if f.lost {
		return nil, f.err
	}
	next, err := l.cluster.Admit(txn.Header{Epoch: q.epoch, Time: txn.Time(time.Now().UnixNano())})
	if err != nil {
		return nil, ErrNotLeader
	}
	l.cluster = next
	l.index++
	l.entries[fmt.Sprintf("%T", q.c)]++
	id := q.c.Transaction()
	tx, _, err := txn.Step(txn.At{Cluster: l.cluster, Index: l.index}, l.state[id], q.c)
	if err == nil {
		l.state[id] = tx
	}
	if f.err != nil {
		return nil, f.err
	}
	return tx, err
}

func (l *memLog) Now() txn.Time { return txn.Time(time.Now().UnixNano()) }

func (l *memLog) Barrier(ctx context.Context) error {
	time.Sleep(l.latency)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.barrier != nil {
		return l.barrier()
	}
	return ctx.Err()
}

func (l *memLog) Transaction(id txn.TxID) (*txn.Transaction, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tx, ok := l.state[id]
	return tx, ok
}

func (l *memLog) Open(yield func(*txn.Transaction) bool) {
	l.mu.Lock()
	var open []*txn.Transaction
	for _, tx := range l.state {
		if !tx.State.Finished() {
			open = append(open, tx)
		}
	}
	l.mu.Unlock()
	slices.SortFunc(open, func(a, b *txn.Transaction) int { return slices.Compare(a.ID[:], b.ID[:]) })
	for _, tx := range open {
		if !yield(tx) {
			return
		}
	}
}

func (l *memLog) Participant(name string) (participants.Registration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.whileLooking != nil {
		l.whileLooking()
	}
	r, ok := l.participants[name]
	return r, ok
}

func (l *memLog) Participants() []participants.Registration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []participants.Registration
	for _, r := range l.participants {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b participants.Registration) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	return all
}

func (l *memLog) Cluster() txn.Cluster {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cluster
}

func (l *memLog) ClusterID() string { return "test-cluster" }

// withFate scripts the log.
func (l *memLog) withFate(f func(txn.Command) fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fate = f
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
