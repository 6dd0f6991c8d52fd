package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Failover is what clients felt when the leader fell, or handed over, under load. Times
// are in seconds after that moment.
type Failover struct {
	Graceful  bool   `json:"graceful"` // told to hand over, not killed
	Leader    string `json:"leader"`   // that fell
	NewLeader string `json:"new_leader"`

	RateBefore float64 `json:"tx_per_s_before"`
	// FirstDecision is when a client first learnt an outcome that the fallen leader
	// cannot have given.
	FirstDecision float64 `json:"first_decision_s"`
	// Recovered is from when on there were 90 % as many as before, over half a second;
	// -1 where there never were.
	Recovered float64 `json:"recovered_s"`
	// LongestGap is the longest time without any outcome from that moment on.
	LongestGap float64 `json:"longest_gap_s"`
	Failed     uint64  `json:"failed"` // transactions whose clients gave up
}

const (
	// lateAnswer is how long an answer that the leader gave before it fell may take to
	// arrive. What comes later is another's.
	lateAnswer = 50 * time.Millisecond
	// recoveredRate of the rate before, over recoveredSpan, is recovery. The span is long
	// enough to count some hundred transactions, and short beside what a user waits.
	recoveredRate = 0.9
	recoveredSpan = 500 * time.Millisecond
	// recoveredStep is how fine the moment of recovery is looked for.
	recoveredStep = 10 * time.Millisecond
)

// failover puts the cluster under load, has the leader fall, and looks at what clients
// learnt around that moment.
func (b *bench) failover(ctx context.Context) error {
	l := newLoad(newTraffic(b.cfg, b.ground.clients).run)
	l.diary = &diary{}
	l.start(ctx, b.cfg.Steps[0], b.cfg.InFlight)
	f, err := b.fall(ctx, l)
	l.stop()
	if err = errors.Join(err, ctx.Err()); err == nil {
		b.report.Failovers = append(b.report.Failovers, f)
	}
	return err
}

func (b *bench) fall(ctx context.Context, l *load) (Failover, error) {
	f := Failover{Graceful: b.cfg.TransferLeaderAt > 0}
	b.watch(ctx, l, b.cfg.Warmup, "warming up")
	warm := time.Now()
	at := max(b.cfg.KillLeaderAt, b.cfg.TransferLeaderAt)
	before := b.watch(ctx, l, at, "")
	f.RateBefore = float64(before.done()) / time.Since(warm).Seconds()
	moment, leader, err := b.fell(ctx, f.Graceful)
	if err != nil {
		return f, err
	}
	f.Leader = leader
	after := b.watch(ctx, l, b.cfg.Duration-at, "after the fall of "+leader)
	f.Failed = after.answers[failed]
	view, err := b.ground.leader(ctx)
	if err != nil {
		return f, err
	}
	f.NewLeader = view.GetLeader()
	if f.NewLeader == leader {
		return f, fmt.Errorf("%s fell and leads again: nothing was measured", leader)
	}
	return f, f.judge(l.diary.read(), moment, time.Now())
}

// fell kills the leader, or has it hand over, and tells when.
func (b *bench) fell(ctx context.Context, graceful bool) (moment time.Time, leader string, err error) {
	view, err := b.ground.leader(ctx)
	if err != nil {
		return moment, "", err
	}
	leader = view.GetLeader()
	node, ok := b.ground.cluster.Node(leader)
	if !ok {
		return moment, "", fmt.Errorf("%s leads and is none of the nodes", leader)
	}
	moment = time.Now()
	if graceful {
		return moment, leader, b.ground.heads[0].TransferLeadership(ctx, "")
	}
	return moment, leader, node.Kill()
}

// judge reads the diary of the load around the moment of the fall. It was kept until
// the end.
func (f *Failover) judge(spans []span, fall, end time.Time) error {
	slices.SortFunc(spans, func(a, b span) int { return a.answered.Compare(b.answered) })
	first := slices.IndexFunc(spans, func(s span) bool {
		return s.began.After(fall) || !f.Graceful && s.answered.After(fall.Add(lateAnswer))
	})
	if first < 0 {
		return errors.New("no client learnt an outcome after the fall")
	}
	f.FirstDecision = spans[first].answered.Sub(fall).Seconds()
	f.LongestGap = longestGap(spans, fall).Seconds()
	from := fall
	if !f.Graceful {
		from = spans[first].answered
	}
	f.Recovered = f.recovered(spans, fall, from, end)
	return nil
}

// longestGap is the longest time between two answers of which the later came after the
// fall.
func longestGap(spans []span, fall time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(spans); i++ {
		if spans[i].answered.After(fall) {
			longest = max(longest, spans[i].answered.Sub(spans[i-1].answered))
		}
	}
	return longest
}

// recovered is the first moment, not before from, from which on the rate was back.
func (f *Failover) recovered(spans []span, fall, from, end time.Time) float64 {
	enough := recoveredRate * f.RateBefore * recoveredSpan.Seconds()
	place := func(at time.Time) int {
		i, _ := slices.BinarySearchFunc(spans, at, func(s span, at time.Time) int { return s.answered.Compare(at) })
		return i
	}
	for ; !from.Add(recoveredSpan).After(end); from = from.Add(recoveredStep) {
		begin, over := place(from), place(from.Add(recoveredSpan))
		if float64(over-begin) >= enough {
			return from.Sub(fall).Seconds()
		}
	}
	return -1
}
