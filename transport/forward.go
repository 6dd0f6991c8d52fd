package transport

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
)

const (
	// maxHops is how often a call may be passed on. The node it was first sent to
	// knows who leads or finds out; one that it was passed to in error says so,
	// and never passes it on, so that two nodes which mistake each other for the
	// leader don't play ping-pong.
	maxHops = 1

	// answerMargin is how long before the client's deadline this node answers with
	// what is known by then: "committed, not yet delivered" is worth nothing after
	// it. A network round trip and some scheduling fit in.
	answerMargin = 50 * time.Millisecond
	// answerShare bounds the margin to that part of a short deadline.
	answerShare = 8

	// callBudget bounds a call whose client set no deadline, beside the time that
	// its transaction may take: several failovers.
	callBudget = 10 * time.Second

	// electPatience bounds how long a node that was elected takes to lead: a barrier
	// and an entry, some milliseconds, and on a busy disk some more.
	electPatience = 250 * time.Millisecond

	// joinBudget bounds AddNode in its place: the new node first catches up.
	joinBudget = 2 * time.Minute

	// retryBase and retryCap bound the pause between two attempts, full jitter. A
	// change of leader ends it early.
	retryBase = 20 * time.Millisecond
	retryCap  = 250 * time.Millisecond
)

// errand is one call that only the leader can carry out.
type errand[A any] struct {
	txid   string        // for errors; empty where the call is not about a transaction
	budget time.Duration // bounds the call when its client did not
	once   bool          // it must not be repeated where it may have been carried out

	// local carries it out here, remote at the leader. Both are idempotent unless
	// once is set.
	local  func(ctx context.Context) (A, error)
	remote func(ctx context.Context, conn *grpc.ClientConn) (A, error)
	// settled answers from the state that is applied here, when time is up; nil
	// where there is nothing to look for. What a node shows as decided is final.
	settled func() (A, bool)

	ran bool // an attempt without an answer may have been carried out
	// failed is how an attempt here ended that was made already, by a call that this node
	// has admitted: it counts as the first.
	failed error
}

// attempted takes the first attempt's error, once.
func (e *errand[A]) attempted() error {
	err := e.failed
	e.failed = nil
	return err
}

// route has the leader carry out an errand: here, or where the leader is. While
// there is none, or an attempt ends without a definite answer, it waits for a
// change and tries again, until the client's time is up. The error is a status.
//
// A call that another node passed on is tried once and here only: that node
// waits and repeats it.
func route[A any](ctx context.Context, s *Server, e *errand[A]) (A, error) {
	within, cancel := bound(ctx, e.budget)
	defer cancel()
	return carryOut(within, s, hops(ctx), e)
}

// carryOut is route, of an errand that was passed on so many times before, in a
// context that is bounded already.
func carryOut[A any](ctx context.Context, s *Server, hops int, e *errand[A]) (answer A, err error) {
	if e.failed == nil {
		if err := s.enter(); err != nil {
			return answer, refuse(err, e.txid)
		}
	}
	defer s.leave()
	if hops > 0 {
		answer, err = direct(ctx, s, hops, e)
	} else {
		answer, err = pursue(ctx, s, e)
	}
	return answer, refuse(err, e.txid)
}

// direct carries out an errand that was passed on to this node.
func direct[A any](ctx context.Context, s *Server, hops int, e *errand[A]) (A, error) {
	if err := e.attempted(); err != nil {
		var none A
		return none, err
	}
	if hops > maxHops || !s.leads(ctx) {
		var none A
		return none, fmt.Errorf("%w, and does not pass on what was passed on to it", coordinator.ErrNotLeader)
	}
	return e.local(ctx)
}

// leads reports whether this node drives transactions. One that has just been
// elected will in some milliseconds, and is waited for: who passes a call on cannot
// know when that is.
func (s *Server) leads(ctx context.Context) bool {
	if s.cfg.Coordinator.Leads() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, electPatience)
	defer cancel()
	for {
		now := s.observer.view()
		switch {
		case s.cfg.Coordinator.Leads():
			return true
		case now.leader.ID != s.observer.self:
			return false
		}
		select {
		case <-now.changed:
		case <-ctx.Done():
			return false
		}
	}
}

func pursue[A any](ctx context.Context, s *Server, e *errand[A]) (A, error) {
	var none A
	for n := 0; ; n++ { // attempts under one leader
		now := s.observer.view() // before the attempt, so that no change is missed after it
		answer, err := try(ctx, s, e, now)
		if err == nil {
			return answer, nil
		}
		f, after := judge(err)
		switch {
		case f == answered:
			return none, err
		case f == mayHaveRun:
			e.ran = true
			if e.once {
				return none, unknownOutcome(err)
			}
		case reasonOf(err) == reasonBusy && !e.ran:
			return none, err // the client's to wait: it knows what else it has to do
		}
		if !pause(ctx, n, after, now.changed) {
			return giveUp(ctx, e, err)
		}
		if closed(now.changed) {
			n = -1 // a new leader needs some milliseconds to begin; what was waited for the old one is no measure
		}
	}
}

// try makes one attempt, where the leader is believed to be.
func try[A any](ctx context.Context, s *Server, e *errand[A], now leadership) (A, error) {
	var none A
	if err := e.attempted(); err != nil {
		return none, err
	}
	switch {
	case s.cfg.Coordinator.Leads():
		return e.local(ctx)
	case now.leader == (cluster.Peer{}):
		return none, fmt.Errorf("%w, and knows of no leader", coordinator.ErrNotLeader)
	case now.leader.ID == s.observer.self:
		return none, fmt.Errorf("%w yet", coordinator.ErrNotLeader)
	}
	conn, err := s.link.connect(ctx, now.leader)
	if err != nil {
		return none, err
	}
	if !e.once { // nothing would send it to the next leader; and it may be what ends this reign
		var cut context.CancelCauseFunc
		ctx, cut = context.WithCancelCause(ctx)
		defer cut(nil)
		defer context.AfterFunc(now.reign, func() { cut(errDeposed) })()
	}
	return e.remote(passedOn(ctx), conn)
}

// pause waits before attempt n+1, or until who leads has changed; false when ctx
// ends first.
func pause(ctx context.Context, n int, atLeast time.Duration, changed <-chan struct{}) bool {
	ceiling := min(retryCap, retryBase<<min(n, 10)) // past ten doublings the cap holds
	timer := time.NewTimer(min(atLeast, retryCap) + rand.N(ceiling))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// giveUp answers when time is up.
func giveUp[A any](ctx context.Context, e *errand[A], last error) (A, error) {
	var none A
	if e.settled != nil {
		if answer, ok := e.settled(); ok {
			return answer, nil
		}
	}
	switch {
	case e.ran:
		return none, unknownOutcome(last)
	case reasonOf(last) == reasonBusy:
		return none, last
	default:
		return none, fmt.Errorf("%w: no leader could be reached in time: %s", coordinator.ErrNotLeader, message(last))
	}
}

// unknownOutcome keeps the words of an attempt's error and nothing else: its
// class is that of one attempt and not of the call.
func unknownOutcome(last error) error {
	return fmt.Errorf("%w: %s", coordinator.ErrOutcomeUnknown, message(last))
}

// bound ends ctx a little before the client's deadline, or after budget where it
// has none.
func bound(ctx context.Context, budget time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, budget)
	}
	return context.WithDeadline(ctx, deadline.Add(-margin(time.Until(deadline))))
}

// margin is how long before the end of a client's patience this node answers.
func margin(patience time.Duration) time.Duration {
	return min(answerMargin, max(0, patience/answerShare))
}

// hops is how often a call was passed on before it came here.
func hops(ctx context.Context) int {
	sent := metadata.ValueFromIncomingContext(ctx, metadataHop)
	if len(sent) == 0 {
		return 0
	}
	n, err := strconv.Atoi(sent[0])
	if err != nil || n < 0 {
		return maxHops + 1 // no node of ours sent that
	}
	return n
}
