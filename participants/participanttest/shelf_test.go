package participanttest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/decree-tx/decree/participants"
)

// shelf is the resource that the suite's own tests use: counters that can be
// locked, behind a fake that keeps the books. A payload is a list of words: the
// counters to add one to, perhaps after a word that says what goes wrong.
type shelf struct {
	door sync.Mutex // one prepare at a time looks at the locks

	mu      sync.Mutex // guards what follows
	counts  map[string]int
	blocked map[string]bool // counters that somebody else has locked
	foreign int             // what others have prepared
	crashed []func()        // what a crash does to the resource
}

func (s *shelf) add(payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, counter := range strings.Fields(string(payload)) {
		s.counts[counter]++
	}
}

func (s *shelf) count(counter string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[counter]
}

func (s *shelf) block(counter string, blocked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked[counter] = blocked
}

func (s *shelf) blocks(counters []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(counters, func(c string) bool { return s.blocked[c] })
}

func (s *shelf) addForeign(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.foreign += n
	return s.foreign
}

func (s *shelf) onCrash(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashed = append(s.crashed, fn)
}

func (s *shelf) crash() {
	s.mu.Lock()
	fns := s.crashed
	s.crashed = nil
	s.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// reader gives the fake the votes that payloads and locks ask for.
type reader struct {
	*Fake
	shelf *shelf
}

func (r reader) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	r.shelf.door.Lock()
	defer r.shelf.door.Unlock()
	words := strings.Fields(string(b.Payload))
	switch first := words[0]; {
	case first == "refuse", first == "late", first == "deferred":
		r.Script(Prepare, b.TxID, Answer{Vote: participants.No("a payload that says %q", first)})
	case first == "look":
		r.Script(Prepare, b.TxID, Answer{Vote: participants.ReadOnly()})
	case r.locked(b, words):
		r.Script(Prepare, b.TxID, Answer{Vote: participants.No("timeout waiting for a lock")})
	}
	return r.Fake.Prepare(ctx, b)
}

// locked reports whether another branch, or somebody else, holds one of the
// counters.
func (r reader) locked(b participants.Branch, counters []string) bool {
	if r.shelf.blocks(counters) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, record := range r.records {
		if record.Status != participants.StatusPrepared || k == idOf(b) {
			continue
		}
		held := strings.Fields(string(r.payloads[k]))
		if slices.ContainsFunc(counters, func(c string) bool { return slices.Contains(held, c) }) {
			return true
		}
	}
	return false
}

// severed is a participant whose connection breaks at its first prepare.
type severed struct {
	participants.Participant
	arrives bool
	broken  atomic.Bool
}

func (p *severed) Prepare(ctx context.Context, b participants.Branch) (participants.Vote, error) {
	if p.broken.Swap(true) {
		return p.Participant.Prepare(ctx, b)
	}
	if p.arrives {
		p.Participant.Prepare(ctx, b) //nolint:errcheck // its answer is lost
	}
	return participants.Vote{}, ErrCut
}

// harness runs the suite over a shelf; the mutant may break its participants.
func harness(m mutant) Harness {
	return Harness{Start: func(t *testing.T) *Subject {
		s := &shelf{counts: map[string]int{}, blocked: map[string]bool{}}
		var f *Fake
		fresh := func() {
			f = NewFake()
			f.OnCommit(func(b participants.Branch) { s.add(b.Payload) })
		}
		fresh()
		open := func(*testing.T) participants.Participant { return m.spoil(s, f) }
		p := open(t)
		again := func(forget bool) participants.Participant {
			if forget {
				fresh()
				p = open(t)
			}
			return p
		}
		return &Subject{
			Participant: p,
			Restart:     func(*testing.T) participants.Participant { return again(m.forget) },
			Crash: func(*testing.T) participants.Participant {
				s.crash()
				return again(m.fragile)
			},
			Second: open,
			Cut: func(_ *testing.T, arrives bool) participants.Participant {
				return &severed{Participant: p, arrives: arrives}
			},
			Effect:    func(counter string) []byte { return []byte(counter) },
			Both:      func(first, second string) []byte { return []byte(first + " " + second) },
			FailsLate: func(counter string) []byte { return []byte("late " + counter) },
			Deferred:  func(counter string) []byte { return []byte("deferred " + counter) },
			Count:     func(_ *testing.T, counter string) int { return s.count(counter) },
			Refused:   func() []byte { return []byte("refuse") },
			ReadOnly:  func() []byte { return []byte("look") },
			Conflicts: true,
			Block: func(_ *testing.T, counter string) func() {
				s.block(counter, true)
				return func() { s.block(counter, false) }
			},
			Meddle: func(t *testing.T, b participants.Branch, end Op) {
				if end == Abort {
					f.Lose(b)
				} else if err := f.commit(b); err != nil {
					t.Fatal(err)
				}
			},
			Foreign: func(t *testing.T) func() {
				s.addForeign(1)
				return func() {
					if n := s.addForeign(0); n != 1 {
						t.Errorf("others have %d transactions prepared, want the one that they prepared", n)
					}
				}
			},
		}
	}}
}
