package bench

import (
	"encoding/json"
	"testing"

	"github.com/decree-tx/decree/cmd/internal/bench/trivial"
)

// What is proven here: the mix has the shares that were asked for, an aborted
// transaction has one no among its branches, and no two transactions share a key.

func TestMix(t *testing.T) {
	cfg := Defaults()
	cfg.Abort, cfg.ReadOnly = 0.05, 0.10
	traffic := newTraffic(cfg, nil)
	var counts [3]int
	const all = 100_000
	for n := range uint64(all) {
		counts[traffic.kind(n)]++
	}
	for v, want := range map[vote]int{no: 5000, readOnly: 10_000, yes: 85_000} {
		if got := counts[v]; got < want-300 || got > want+300 {
			t.Errorf("%d of %d are of kind %d, want about %d", got, all, v, want)
		}
	}
}

func TestOneNoAmongTheBranches(t *testing.T) {
	cfg := Defaults()
	cfg.Branches, cfg.Abort = 4, 1
	traffic := newTraffic(cfg, nil)
	var votes []vote
	traffic.payload = func(_ uint64, _, _ int, v vote) []byte {
		votes = append(votes, v)
		return nil
	}
	traffic.transaction(7)
	if len(votes) != 4 || votes[3] != no || votes[0] != yes || votes[1] != yes || votes[2] != yes {
		t.Errorf("votes %v, want one no, the last", votes)
	}
}

// TestParticipantsTakeTurns holds that branches of one transaction lie at different
// participants while there are enough, and that all participants get the same load.
func TestParticipantsTakeTurns(t *testing.T) {
	cfg := Defaults()
	cfg.Branches, cfg.ParticipantsCount = 3, 7
	traffic := newTraffic(cfg, nil)
	load := make([]int, cfg.ParticipantsCount)
	var now []int
	traffic.payload = func(_ uint64, _, participant int, _ vote) []byte {
		now = append(now, participant)
		load[participant]++
		return nil
	}
	for n := range uint64(7) {
		now = nil
		traffic.transaction(n)
		if now[0] == now[1] || now[1] == now[2] || now[0] == now[2] {
			t.Errorf("transaction %d is at %v", n, now)
		}
	}
	for p, n := range load {
		if n != 3 {
			t.Errorf("participant %d has %d branches of 21, want 3", p, n)
		}
	}
}

func TestPayloads(t *testing.T) {
	simple := trivialPayloads(10)
	for v, first := range map[vote]byte{yes: 'y', no: trivial.VoteNo, readOnly: trivial.VoteReadOnly} {
		if got := simple(1, 0, 0, v); len(got) != 10 || got[0] != first {
			t.Errorf("vote %d is %q", v, got)
		}
	}
	kv := kvPayloads(100)
	if got := kv(7, 1, 0, yes); len(got) != 100 {
		t.Errorf("%d bytes of kv payload, want 100: %s", len(got), got)
	}
	seen := map[string]bool{}
	for n := range uint64(100) {
		for branch := range 2 {
			payload := kv(n, branch, 0, yes)
			if !json.Valid(payload) || seen[string(payload)] {
				t.Errorf("payload %s", payload)
			}
			seen[string(payload)] = true
		}
	}
	target := targetPayloads([]Target{{"a", `{"key": "k{n}"}`}, {"b", "{n}-{n}"}})
	if got := string(target(12, 0, 1, yes)); got != "12-12" {
		t.Errorf("payload %q", got)
	}
}
