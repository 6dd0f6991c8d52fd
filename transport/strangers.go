package transport

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"
)

// This file bounds what those who may not call make this node hold. gRPC receives the
// message of a call, of up to MaxRequestBytes, before it asks an interceptor: so who calls
// is asked when the headers have come, which are all that is needed to refuse. What
// strangers may call, health, is received from few of them at a time.

// maxStrangers is of how many strangers' calls messages are received at once: those of
// probes are empty, and have come with their headers.
const maxStrangers = 64

// knock is asked as soon as a call's headers have come.
func (g *guard) knock(ctx context.Context, info *tap.Info) (context.Context, error) {
	row := rights[info.FullMethodName]
	if row.open() || len(row) == 0 { // gRPC has an answer about what is nobody's
		return g.strangers.receive(ctx), nil
	}
	a, err := g.identify(ctx)
	if err == nil && !row.has(a.who.Role) {
		err = deny(a.who, info.FullMethodName, row)
	}
	return ctx, refuse(err, "")
}

// strangers are the youngest calls of strangers. The oldest makes room for a new one: who
// stalls is cut by others, and a probe, which does not, never waits.
type strangers struct {
	mu   sync.Mutex
	all  [maxStrangers]*stranger // guarded by mu
	next int                     // the oldest; guarded by mu
}

// stranger is a call whose message is received.
type stranger struct {
	heard  atomic.Bool // all of it
	cancel context.CancelFunc
}

type strangerKey struct{}

// receive is the context in which a stranger's message is received.
func (s *strangers) receive(ctx context.Context) context.Context {
	one := &stranger{}
	ctx, one.cancel = context.WithCancel(ctx)
	s.mu.Lock()
	oldest := s.all[s.next]
	s.all[s.next] = one
	s.next = (s.next + 1) % maxStrangers
	s.mu.Unlock()
	if oldest != nil && !oldest.heard.Load() {
		oldest.cancel()
	}
	return context.WithValue(ctx, strangerKey{}, one)
}

// heard says that the message has come: the call may take its time.
func heard(ctx context.Context) {
	if one, ok := ctx.Value(strangerKey{}).(*stranger); ok {
		one.heard.Store(true)
	}
}

// hearing is a stream whose first message is waited for.
type hearing struct{ grpc.ServerStream }

func (h hearing) RecvMsg(m any) error {
	err := h.ServerStream.RecvMsg(m)
	if err == nil {
		heard(h.Context())
	}
	return err //nolint:wrapcheck // a stream's own
}
