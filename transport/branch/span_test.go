package branch

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

// A service's own spans go below the coordinator's, unless its server has put one into
// the context already.
func TestCallsCarryTheirSpan(t *testing.T) {
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	ctx := withSpan(t.Context(), traceparent)
	is := trace.SpanContextFromContext(ctx)
	if is.TraceID().String() != "4bf92f3577b34da6a3ce929d0e0e4736" || is.SpanID().String() != "00f067aa0ba902b7" || !is.IsSampled() || !is.IsRemote() {
		t.Errorf("the span is %+v", is)
	}
	if again := withSpan(ctx, "00-11111111111111111111111111111111-2222222222222222-01"); trace.SpanContextFromContext(again).TraceID() != is.TraceID() {
		t.Error("the server's own span is lost")
	}
	for _, wrong := range []string{"", "00-nothing-such-01"} {
		if ctx := withSpan(context.Background(), wrong); trace.SpanContextFromContext(ctx).IsValid() {
			t.Errorf("%q makes a span", wrong)
		}
	}
}
