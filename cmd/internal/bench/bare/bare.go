// Package bare is the figure that a benchmark compares with: a node that runs only
// Raft, by the settings of package cluster, under a state machine that does nothing,
// and callers in its own process that propose entries and wait.
//
// It owns the machine's limit: no client, no message, no transaction. What decree
// takes beside it is decree's. It refuses to be of use for anything else.
package bare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"github.com/hashicorp/raft"

	"github.com/decree-tx/decree/cluster"
)

// Config of one node.
type Config struct {
	Cluster cluster.Config // FSM is filled in here
	Control string         // host:port at which it takes orders
}

// The paths of a node's orders.
const (
	LeadsPath = "/leads" // 200 where this node leads, 503 where it does not
	ApplyPath = "/apply" // runs an Order and answers an Outcome
)

// Order has callers propose entries, each one when its last is applied.
type Order struct {
	Callers  int           `json:"callers"`
	Bytes    int           `json:"bytes"` // of an entry
	Warmup   time.Duration `json:"warmup_ns"`
	Duration time.Duration `json:"duration_ns"`
}

// Outcome is what came of an order, without its warm-up.
type Outcome struct {
	Entries uint64        `json:"entries"`
	Failed  uint64        `json:"failed"`
	Span    time.Duration `json:"span_ns"`
	// Latency is of applied entries, in microseconds: an HDR snapshot.
	Latency *hdr.Snapshot `json:"latency"`
}

// Latencies are kept in microseconds, to three digits, up to a minute.
const (
	longest = int64(time.Minute / time.Microsecond)
	digits  = 3
)

// headerTimeout bounds how long a caller may take over its request's header.
const headerTimeout = 5 * time.Second

// Serve runs a node until ctx ends.
func Serve(ctx context.Context, cfg Config) error {
	l, err := net.Listen("tcp", cfg.Control)
	if err != nil {
		return err
	}
	n := &node{}
	server := &http.Server{Handler: n.handler(), ReadHeaderTimeout: headerTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()

	cfg.Cluster.FSM = nothing{}
	member, err := cluster.Open(ctx, cfg.Cluster)
	if err == nil {
		n.open(ctx, member)
		select {
		case <-ctx.Done():
		case err = <-served:
			served <- nil
		}
		err = errors.Join(err, member.Close(context.Background()))
	}
	err = errors.Join(err, server.Close())
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}

// node answers orders, once it is open.
type node struct {
	member atomic.Pointer[cluster.Node]
	leads  atomic.Bool
}

func (n *node) open(ctx context.Context, member *cluster.Node) {
	n.member.Store(member)
	member.Lead(func(leading context.Context, _ uint64) {
		n.leads.Store(true)
		defer n.leads.Store(false)
		select {
		case <-leading.Done():
		case <-ctx.Done():
		}
	})
}

func (n *node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+LeadsPath, func(w http.ResponseWriter, _ *http.Request) {
		if !n.leads.Load() {
			http.Error(w, "another node leads", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST "+ApplyPath, n.serveApply)
	return mux
}

func (n *node) serveApply(w http.ResponseWriter, r *http.Request) {
	var o Order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || o.Callers < 1 || o.Bytes < 1 || o.Duration <= 0 {
		http.Error(w, fmt.Sprintf("no order: %+v, %v", o, err), http.StatusBadRequest)
		return
	}
	if !n.leads.Load() {
		http.Error(w, "another node leads", http.StatusServiceUnavailable)
		return
	}
	outcome, err := run(r.Context(), n.member.Load(), o)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	json.NewEncoder(w).Encode(outcome) //nolint:errcheck // the one who asked has gone
}

// run carries out an order.
func run(ctx context.Context, member *cluster.Node, o Order) (Outcome, error) {
	begin := time.Now().Add(o.Warmup)
	c := &callers{
		member: member, entry: []byte(strings.Repeat("e", o.Bytes)),
		begin: begin, end: begin.Add(o.Duration), latency: hdr.New(1, longest, digits),
	}
	var calling sync.WaitGroup
	for range o.Callers {
		calling.Go(func() { c.call(ctx) })
	}
	calling.Wait()
	return Outcome{
		Entries: uint64(c.latency.TotalCount()), Failed: c.failed, //nolint:gosec // a count
		Span: o.Duration, Latency: c.latency.Export(),
	}, ctx.Err()
}

// callers propose entries, each one after the other.
type callers struct {
	// set once by run
	member     *cluster.Node
	entry      []byte
	begin, end time.Time // of what is measured

	mu      sync.Mutex // guards what follows
	failed  uint64
	latency *hdr.Histogram
}

// call is one caller.
func (c *callers) call(ctx context.Context) {
	for ctx.Err() == nil {
		start := time.Now()
		if start.After(c.end) {
			return
		}
		_, _, err := c.member.Apply(c.entry).Wait(ctx)
		if now := time.Now(); now.After(c.begin) && now.Before(c.end) {
			c.record(now.Sub(start), err)
		}
	}
}

func (c *callers) record(took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed++
		return
	}
	c.latency.RecordValue(min(max(took.Microseconds(), 1), longest)) //nolint:errcheck // it is within the bounds
}

// nothing is a state machine without a state.
type nothing struct{}

func (nothing) Apply(*raft.Log) any { return nil }

func (nothing) ApplyBatch(logs []*raft.Log) []any { return make([]any, len(logs)) }

func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }

func (nothing) Restore(r io.ReadCloser) error { return r.Close() }

func (nothing) Persist(sink raft.SnapshotSink) error { return sink.Close() }

func (nothing) Release() {}

// Peers are those of the nodes id=raft-address, in cluster's words.
func Peers(list string) ([]cluster.Peer, error) {
	var peers []cluster.Peer
	for member := range strings.SplitSeq(list, ",") {
		id, address, ok := strings.Cut(member, "=")
		if !ok {
			return nil, fmt.Errorf("%s: want id=host:port", strconv.Quote(member))
		}
		peers = append(peers, cluster.Peer{ID: id, RaftAddress: address})
	}
	return peers, nil
}
