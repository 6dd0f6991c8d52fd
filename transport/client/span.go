package client

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// scope names the SDK to OpenTelemetry.
const scope = "github.com/decree-tx/decree/transport/client"

// startSpan begins a span below the one in ctx, with that one's provider, and gives the
// traceparent of it. Where ctx has none it does nothing, and neither does the cluster.
func startSpan(ctx context.Context, name, txid string) (context.Context, trace.Span, string) {
	above := trace.SpanFromContext(ctx)
	if !above.SpanContext().IsValid() {
		return ctx, above, ""
	}
	ctx, span := above.TracerProvider().Tracer(scope).Start(ctx, name,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("decree.txid", txid)))
	is := span.SpanContext()
	if !is.IsValid() { // the span above came from elsewhere, and there is no provider here
		is = above.SpanContext()
	}
	return ctx, span, "00-" + is.TraceID().String() + "-" + is.SpanID().String() + "-" + is.TraceFlags().String()
}

// endSpan ends what startSpan began.
func endSpan(span trace.Span, traceparent string, r Result, err error) {
	if traceparent == "" {
		return // it is the caller's
	}
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	} else {
		span.SetAttributes(attribute.String("decree.outcome", r.Outcome.String()))
	}
	span.End()
}
