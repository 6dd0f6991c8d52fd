package coordinator

import (
	"cmp"
	"fmt"
	"time"
)

// Paces of lines that could otherwise come with every transaction.
const (
	slowPace    = 100 * time.Millisecond
	failurePace = time.Second // for each participant
)

// gate lets a line into the log at a pace, and counts what it kept out. Guarded by
// term.mu.
type gate struct {
	opens time.Time
	held  int
}

// pass reports whether a line may be written, and how many were not since the last.
func (g *gate) pass(now time.Time, pace time.Duration) (held int, ok bool) {
	if now.Before(g.opens) {
		g.held++
		return 0, false
	}
	held, g.held, g.opens = g.held, 0, now.Add(pace)
	return held, true
}

// tellSlow logs a transaction that took its time, once it is over. mu is held.
func (t *term) tellSlow(d *drive) {
	c := &d.chronicle
	begun := cmp.Or(d.sealed, c.begun)
	took := time.Duration(c.delivered - begun)
	if t.cfg.SlowTransaction == 0 || took < t.cfg.SlowTransaction {
		return
	}
	held, ok := t.slow.pass(time.Now(), slowPace)
	if !ok {
		return
	}
	decided := cmp.Or(c.decided, begun) // by an earlier leader
	proposed := cmp.Or(c.deciding, decided)
	t.logger.Warn("slow transaction", "txid", d.id, "decision", d.Transaction().Decision(), "took", took,
		"preparing", time.Duration(proposed-begun), "deciding", time.Duration(decided-proposed),
		"delivering", time.Duration(c.delivered-decided), "taken-over", c.takenOver,
		"branches", d.tellBranches(), "suppressed", held)
}

// tellBranches says of each branch how long it took to vote and to acknowledge, and in
// how many deliveries.
func (d *drive) tellBranches() []string {
	var all []string
	for i, k := range d.chronicle.tracks {
		line := d.Branches()[i].Participant + ":"
		if k.voted > 0 && k.prepared > 0 {
			line += fmt.Sprintf(" voted %s in %s", k.vote, time.Duration(k.voted-k.prepared))
		}
		if k.answered > 0 && k.firstSent > 0 {
			line += fmt.Sprintf(" acknowledged in %s, deliveries: %d", time.Duration(k.answered-k.firstSent), k.attempts)
		}
		if k.trouble != nil && k.trouble.lastError != "" {
			line += fmt.Sprintf(", last error: %q", k.trouble.lastError)
		}
		all = append(all, line)
	}
	return all
}

// tellPrepareFailed logs an ambiguous answer to a prepare: each, while they are few.
// mu is held.
func (t *term) tellPrepareFailed(d *drive, branch int, err error) {
	participant := d.Branches()[branch-1].Participant
	if held, ok := t.lane(participant).complaints.pass(time.Now(), failurePace); ok {
		t.logger.Warn("prepare failed", "txid", d.id, "participant", participant, "branch", branch, "error", err, "suppressed", held)
	}
}
