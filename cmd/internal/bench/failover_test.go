package bench

import (
	"math"
	"testing"
	"time"
)

// What is proven here: a failover is judged by what clients learnt: the last answers of
// the fallen leader are not the first of the next, and the rate is back when it is.

// spansOf has an answer every interval from one moment to another, each of a
// transaction that began ten milliseconds before.
func spansOf(start time.Time, from, to, interval time.Duration) []span {
	var all []span
	for at := from; at < to; at += interval {
		all = append(all, span{start.Add(at - 10*time.Millisecond), start.Add(at)})
	}
	return all
}

func close2(got, want float64) bool { return math.Abs(got-want) < 0.02 }

func TestJudgeAKill(t *testing.T) {
	start := time.Now()
	fall := start.Add(time.Second)
	spans := spansOf(start, 0, 1005*time.Millisecond, 5*time.Millisecond) // one answer was on its way
	// Its clients wait: what they began before the fall is answered by the next leader.
	spans = append(spans, span{fall.Add(-5 * time.Millisecond), fall.Add(800 * time.Millisecond)})
	spans = append(spans, spansOf(start, 1900*time.Millisecond, 3*time.Second, 10*time.Millisecond)...) // half the rate
	spans = append(spans, spansOf(start, 3*time.Second, 5*time.Second, 5*time.Millisecond)...)
	f := Failover{RateBefore: 200}
	if err := f.judge(spans, fall, start.Add(5*time.Second)); err != nil {
		t.Fatal(err)
	}
	if !close2(f.FirstDecision, 0.8) || !close2(f.LongestGap, 0.8) {
		t.Errorf("first decision after %gs, want 0.8; longest gap %gs, want 0.8", f.FirstDecision, f.LongestGap)
	}
	// From 2.9s after the start on, half a second holds 90 %: 10 at half the rate, 80 at
	// the whole.
	if !close2(f.Recovered, 1.9) {
		t.Errorf("recovered after %gs, want 1.9", f.Recovered)
	}
}

func TestJudgeATransfer(t *testing.T) {
	start := time.Now()
	fall := start.Add(time.Second)
	spans := spansOf(start, 0, 1020*time.Millisecond, 5*time.Millisecond)
	spans = append(spans, spansOf(start, 1050*time.Millisecond, 3*time.Second, 5*time.Millisecond)...)
	f := Failover{Graceful: true, RateBefore: 200}
	if err := f.judge(spans, fall, start.Add(3*time.Second)); err != nil {
		t.Fatal(err)
	}
	if !close2(f.LongestGap, 0.035) || f.Recovered != 0 {
		t.Errorf("longest gap %gs, want 0.035; recovered after %gs, want at once", f.LongestGap, f.Recovered)
	}
}

func TestJudgeWithoutRecovery(t *testing.T) {
	start := time.Now()
	spans := spansOf(start, 0, time.Second, 5*time.Millisecond)
	f := Failover{RateBefore: 200}
	if err := f.judge(spans, start.Add(time.Second), start.Add(4*time.Second)); err == nil {
		t.Error("nobody decided any more, and that is no error")
	}
	spans = append(spans, spansOf(start, 2*time.Second, 4*time.Second, 50*time.Millisecond)...)
	if err := f.judge(spans, start.Add(time.Second), start.Add(4*time.Second)); err != nil || f.Recovered != -1 {
		t.Errorf("recovered after %gs (%v) at a tenth of the rate", f.Recovered, err)
	}
}
