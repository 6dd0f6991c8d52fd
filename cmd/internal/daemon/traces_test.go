package daemon

// What is proven here: one trace holds what a client, the coordinator's nodes and a
// participant did about a transaction, also where its leader was replaced on the way;
// and without a client's span, or a share, nobody is traced.

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/cmd/internal/traces"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// collector takes traces as an OpenTelemetry collector does, over HTTP.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracev1.Span // guarded by mu
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collectorv1.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// named are the spans of a name in a trace.
func (c *collector) named(trace, name string) (found []*tracev1.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == trace && s.GetName() == name {
			found = append(found, s)
		}
	}
	return found
}

func text(s *tracev1.Span, key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return fmt.Sprint(a.GetValue().GetStringValue())
		}
	}
	return ""
}

// heard is a participant that notes the traceparents of its calls.
type heard struct {
	*participanttest.Fake
	mu    sync.Mutex
	calls map[string][]string // traceparents, by operation; guarded by mu
}

func (h *heard) note(op string, b participants.Branch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls[op] = append(h.calls[op], b.Traceparent)
}

func (h *heard) parents(op string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.calls[op])
}

func (h *heard) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	h.note("prepare", b)
	return h.Fake.Prepare(ctx, b)
}

func (h *heard) Commit(ctx context.Context, b participants.Branch) error {
	h.note("commit", b)
	return h.Fake.Commit(ctx, b)
}

func (h *heard) Close() error { return nil } // the nodes share it

type heardDriver struct{ *heard }

func (heardDriver) Check([]byte) error { return nil }
func (d heardDriver) Open(context.Context, participants.Registration, hclog.Logger) (participants.Participant, error) {
	return d.heard, nil
}

func TestOneTraceOverAFailover(t *testing.T) {
	to := startCollector(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	service := &heard{Fake: participanttest.NewFake(), calls: map[string][]string{}}
	begun := make(chan string, 16) // nodes, as they begin to trace
	members, c, tracers := startTraced(ctx, t, to, service, begun)
	if _, err := c.PutParticipant(ctx, &decreev1.Participant{Name: "a", Driver: "heard"}); err != nil {
		t.Fatal(err)
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(to.URL+"/v1/traces"))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))

	// Without a span nobody is traced.
	if _, err := c.Submit(ctx, client.Transaction{Branches: []client.Branch{client.JSON("a", "untraced")}}); err != nil {
		t.Fatal(err)
	}
	if got := service.parents("prepare"); len(got) != 1 || got[0] != "" {
		t.Errorf("an untraced prepare has %q", got)
	}

	// The leader is replaced while the participant prepares.
	hold := make(chan struct{})
	service.Script(participanttest.Prepare, participanttest.AnyTx, participanttest.Answer{Hold: hold, Stay: true})
	call, span := provider.Tracer("application").Start(ctx, "checkout")
	trace := span.SpanContext().TraceID().String()
	answered := make(chan error, 1)
	go func() {
		_, err := c.Submit(call, client.Transaction{Branches: []client.Branch{client.JSON("a", "traced")}})
		answered <- err
	}()
	for len(service.parents("prepare")) < 2 && ctx.Err() == nil {
		wait()
	}
	old := awaitLeader(ctx, t, members, nil)
	if err := c.TransferLeadership(ctx, ""); err != nil {
		t.Fatal(err)
	}
	awaitLeader(ctx, t, members, old)
	for node := range begun { // the client has asked the next one too
		if node != old.id {
			break
		}
	}
	close(hold)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	span.End()
	if err := provider.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if err := m.end(t); err != nil {
			t.Error(err)
		}
		if err := tracers[m.id].Close(ctx); err != nil {
			t.Error(err)
		}
	}

	submits := to.named(trace, "decree.Submit")
	if len(submits) != 1 || hex.EncodeToString(submits[0].GetParentSpanId()) != span.SpanContext().SpanID().String() {
		t.Fatalf("the client's spans: %v", submits)
	}
	nodes := map[string]bool{}
	for _, s := range to.named(trace, "decree.transaction") {
		if string(s.GetParentSpanId()) != string(submits[0].GetSpanId()) {
			t.Errorf("a transaction's span is not below the client's: %v", s)
		}
		nodes[text(s, "decree.node")] = true
	}
	if len(nodes) != 2 || !nodes[old.id] {
		t.Errorf("the trace is of the nodes %v, want %s and the one after it", nodes, old.id)
	}
	commits := service.parents("commit") // the untraced one perhaps twice: its receipt may be lost with its leader
	for op, parent := range map[string]string{"prepare": service.parents("prepare")[1], "commit": commits[len(commits)-1]} {
		spans := to.named(trace, "decree."+op)
		if !slices.ContainsFunc(spans, func(s *tracev1.Span) bool {
			return parent == "00-"+trace+"-"+hex.EncodeToString(s.GetSpanId())+"-01" && text(s, "decree.participant") == "a"
		}) {
			t.Errorf("the participant's %s, %q, is below none of %v", op, parent, spans)
		}
	}
	decisions := to.named(trace, "decree.decision")
	if len(decisions) != 1 || number(decisions[0], "raft.index") == 0 || number(decisions[0], "raft.term") == 0 {
		t.Errorf("the decision has no place in the log: %v", decisions)
	}
}

func number(s *tracev1.Span, key string) int64 {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetIntValue()
		}
	}
	return 0
}

func wait() { <-time.After(time.Millisecond) }

// watched tells when its node begins to trace a transaction.
type watched struct {
	coordinator.Tracer
	node  string
	begun chan<- string
}

func (w watched) Begin(id txn.TxID, traceparent string) coordinator.Trace {
	x := w.Tracer.Begin(id, traceparent)
	if x != nil {
		w.begun <- w.node
	}
	return x
}

// startTraced runs three nodes that tell a collector of their traces.
func startTraced(ctx context.Context, t *testing.T, to *collector, service *heard, begun chan<- string) ([]*member, *client.Client, map[string]*traces.Tracer) {
	t.Helper()
	var peers config.Peers
	for i, addr := range freeAddresses(t, 3) {
		peers = append(peers, config.Peer{ID: fmt.Sprintf("n%d", i+1), Addr: addr})
	}
	tracers := map[string]*traces.Tracer{}
	var members []*member
	var opening sync.WaitGroup
	for _, peer := range peers {
		cfg := config.Default()
		cfg.NodeID, cfg.DataDir, cfg.Peers = peer.ID, filepath.Join(t.TempDir(), peer.ID), peers
		cfg.RaftAddr, cfg.GRPCAddr, cfg.HTTPAddr = peer.Addr, "127.0.0.1:0", ""
		tracer, err := traces.Open(ctx, traces.Config{Endpoint: to.URL, Node: peer.ID})
		if err != nil {
			t.Fatal(err)
		}
		tracers[peer.ID] = tracer
		m := &member{id: peer.ID, cfg: cfg, ended: make(chan error, 1)}
		members = append(members, m)
		opening.Go(func() {
			m.daemon, err = Open(ctx, cfg, Options{
				Drivers: participants.Drivers{"heard": heardDriver{service}}, Logger: hclog.NewNullLogger(), Version: "test",
				Tracer: watched{tracer, peer.ID, begun}, Exit: func(err error) { panic(err) },
			})
			if err != nil {
				t.Errorf("open %s: %v", peer.ID, err)
			}
		})
	}
	opening.Wait()
	if t.Failed() {
		t.FailNow()
	}
	var endpoints []string
	for _, m := range members {
		run, stop := context.WithCancel(context.Background())
		m.stop = stop
		endpoints = append(endpoints, m.daemon.GRPC.String())
		go func() { m.ended <- m.daemon.Run(run) }()
		t.Cleanup(stop)
	}
	c, err := client.New(client.Config{Endpoints: endpoints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return members, c, tracers
}
