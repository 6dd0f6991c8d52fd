// Package traces tells OpenTelemetry what became of transactions: a span of each, and
// below it the prepare and the delivery of every branch, and the decision, with its
// place in the log.
//
// It owns which transactions are traced: those whose client's span is sampled, and a
// share of those without one. Spans are made of a transaction's timeline once it is over,
// so that one that is not traced costs nothing. It refuses to hold up a transaction:
// what the collector does not take in time is dropped.
package traces

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
)

// Config says where traces go.
type Config struct {
	// Endpoint of an OTLP collector over HTTP, http://host:4318; where it is empty, that of
	// OTEL_EXPORTER_OTLP_ENDPOINT. Other such variables say the rest: headers,
	// certificates, compression.
	Endpoint string
	// Share of the transactions without a client's span that are traced, 0 to 1.
	Share float64
	// Node and Version are told with every span.
	Node, Version string
}

// Tracer implements coordinator.Tracer. Close it.
type Tracer struct {
	share    float64
	node     string
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// tracesPath is where a collector takes traces (OpenTelemetry Protocol, OTLP/HTTP).
const tracesPath = "/v1/traces"

// Wanted reports whether the environment names a collector, as OpenTelemetry has it.
func Wanted(lookup func(string) (string, bool)) bool {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if v, ok := lookup(name); ok && v != "" {
			return true
		}
	}
	return false
}

// Open makes a tracer. It does not wait for the collector, and reaches it when there is
// something to tell.
func Open(ctx context.Context, c Config) (*Tracer, error) {
	var options []otlptracehttp.Option
	if c.Endpoint != "" {
		options = append(options, otlptracehttp.WithEndpointURL(strings.TrimSuffix(c.Endpoint, "/")+tracesPath))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("otlp-endpoint: %w", err)
	}
	about := resource.NewSchemaless(
		attribute.String("service.name", "decree"), attribute.String("service.version", c.Version),
		attribute.String("service.instance.id", c.Node),
	)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter), sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // Begin has chosen
		sdktrace.WithIDGenerator(chosen{}),
	)
	return &Tracer{share: c.Share, node: c.Node, provider: provider, tracer: provider.Tracer("github.com/decree-tx/decree")}, nil
}

// Close sends what is left, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// Begin implements coordinator.Tracer.
func (t *Tracer) Begin(id txn.TxID, traceparent string) coordinator.Trace {
	parent := parse(traceparent)
	switch {
	case parent.IsSampled():
		return &transaction{Tracer: t, id: id, parent: parent, trace: parent.TraceID(), span: rand.Uint64()}
	case !parent.IsValid() && t.share > 0 && rand.Float64() < t.share:
		x := &transaction{Tracer: t, id: id, span: rand.Uint64()}
		binary.BigEndian.PutUint64(x.trace[:8], rand.Uint64())
		binary.BigEndian.PutUint64(x.trace[8:], rand.Uint64())
		return x
	default:
		return nil
	}
}

func parse(traceparent string) trace.SpanContext {
	if traceparent == "" {
		return trace.SpanContext{}
	}
	carrier := propagation.MapCarrier{"traceparent": traceparent}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

// transaction implements coordinator.Trace.
type transaction struct {
	*Tracer
	id     txn.TxID
	parent trace.SpanContext // the client's; invalid where there is none
	trace  trace.TraceID
	span   uint64 // the transaction's; those below it are counted from there
}

// spanID is that of the calls of a kind to a branch; branch 0 stands for none. Calls
// leave before their span is made, so that its id is known beforehand.
func (x *transaction) spanID(kind txn.WorkKind, branch int) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], x.span+uint64(branch)<<8+uint64(kind)) //nolint:gosec // small
	return id
}

// Call implements coordinator.Trace.
func (x *transaction) Call(kind txn.WorkKind, branch int) string {
	return "00-" + x.trace.String() + "-" + x.spanID(kind, branch).String() + "-01"
}

// End implements coordinator.Trace.
func (x *transaction) End(tl coordinator.Timeline, tx *txn.Transaction) {
	ctx := context.Background()
	if x.parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, x.parent)
	}
	ctx, whole := x.start(ctx, "decree.transaction", 0, 0, tl.Begun, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("decree.txid", x.id.String()), attribute.Int64("decree.epoch", int64(tl.Epoch)), //nolint:gosec // terms are small
		attribute.String("decree.node", x.node), attribute.Bool("decree.taken_over", tl.TakenOver),
	))
	for i, b := range tl.Branches {
		participant := ""
		if tx != nil && i < len(tx.Branches) {
			participant = tx.Branches[i].Participant
		}
		x.branch(ctx, tl, b, participant, decisionOf(tx))
	}
	if tl.Deciding != 0 {
		_, s := x.start(ctx, "decree.decision", txn.AwaitClient, 0, tl.Deciding)
		if tx != nil && tl.Decided != 0 {
			s.SetAttributes(attribute.Int64("raft.index", int64(tx.Decided.Index)), attribute.Int64("raft.term", int64(tx.Decided.Epoch))) //nolint:gosec // small
		}
		end(s, tl.Decided, tl.AsOf)
	}
	if tx != nil && tx.State.Decided() {
		whole.SetAttributes(attribute.String("decree.decision", tx.Decision().String()))
		if tx.Decision() == txn.Abort {
			whole.SetAttributes(attribute.String("decree.reason", tx.Reason.Code.String()))
		}
	}
	end(whole, tl.Delivered, tl.AsOf)
}

func decisionOf(tx *txn.Transaction) txn.WorkKind {
	if tx != nil && tx.Decision() == txn.Commit {
		return txn.CommitBranch
	}
	return txn.AbortBranch
}

// branch tells of the prepare of a branch, and of its delivery, whose attempts that
// failed are events.
func (x *transaction) branch(ctx context.Context, tl coordinator.Timeline, b coordinator.BranchTimeline, participant string, delivery txn.WorkKind) {
	about := trace.WithAttributes(attribute.String("decree.participant", participant), attribute.Int("decree.branch", b.Branch))
	if b.Prepared != 0 {
		_, s := x.start(ctx, "decree.prepare", txn.PrepareBranch, b.Branch, b.Prepared, trace.WithSpanKind(trace.SpanKindClient), about)
		s.SetAttributes(attribute.String("decree.vote", b.Vote.String()))
		if b.VoteDetail != "" {
			s.SetStatus(codes.Error, b.VoteDetail)
		}
		end(s, b.Voted, tl.AsOf)
	}
	if b.FirstSent == 0 {
		return
	}
	_, s := x.start(ctx, "decree."+delivery.String(), delivery, b.Branch, b.FirstSent, trace.WithSpanKind(trace.SpanKindClient), about)
	s.SetAttributes(attribute.Int("decree.deliveries", b.Attempts), attribute.String("decree.receipt", b.Receipt.String()))
	for _, try := range b.Failed {
		s.AddEvent("delivery failed", trace.WithTimestamp(wall(try.Failed)), trace.WithAttributes(attribute.String("decree.last_error", b.LastError)))
	}
	if b.Answered == 0 || b.Receipt.Heuristic() {
		s.SetStatus(codes.Error, b.LastError+b.Evidence)
	}
	end(s, b.Answered, tl.AsOf)
}

func (x *transaction) start(ctx context.Context, name string, kind txn.WorkKind, branch int, at txn.Time, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	ctx = context.WithValue(ctx, choice{}, ids{x.trace, x.spanID(kind, branch)})
	return x.tracer.Start(ctx, name, append(options, trace.WithTimestamp(wall(at)))...)
}

// end ends a span when it ended, or now where it has not.
func end(s trace.Span, at, now txn.Time) {
	if at == 0 {
		at = now
		s.SetAttributes(attribute.Bool("decree.unfinished", true))
	}
	s.End(trace.WithTimestamp(wall(at)))
}

func wall(t txn.Time) time.Time { return time.Unix(0, int64(t)) }

// chosen is the generator of ids that were given out before their spans are made.
type chosen struct{}

type choice struct{}

type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

// NewIDs implements sdktrace.IDGenerator, as NewSpanID does.
func (chosen) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	i, _ := ctx.Value(choice{}).(ids)
	return i.trace, i.span
}

func (chosen) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	i, _ := ctx.Value(choice{}).(ids)
	return i.span
}
