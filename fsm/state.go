package fsm

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/btree"

	"github.com/decree-tx/decree/fsm/txn"
)

// state is all that is replicated, with the indices that are derived from it. It
// is not safe for concurrent use; Machine says who may touch it.
type state struct {
	// Replicated: what snapshots hold.
	cluster      txn.Cluster
	clusterID    string
	level        Level
	index        uint64        // of the last entry applied, refused ones included
	revision     uint64        // the last one given to a participant
	participants []Participant // by name; replaced as a whole, never changed
	audits       audits
	transactions archive

	// Derived, and rebuilt by restore.
	unfinished *btree.BTreeG[txn.TxID] // what is owed something
	damaged    *btree.BTreeG[txn.TxID] // with a heuristic branch that is not resolved; never collected
	ripening   ripening                // finished and undamaged: what retention ends
	openAt     map[string]int          // unfinished transactions by participant; only ever looked up
}

// degree of the trees: nodes of up to 63 items, some 2.5 KB of transactions. A
// snapshot makes the next write copy one node a level, so wide nodes cost too.
const degree = 32

func newState() *state {
	return &state{
		level:        LevelFirst,
		transactions: archive{catalogue: newCatalogue()},
		unfinished:   btree.NewG(degree, lessID),
		damaged:      btree.NewG(degree, lessID),
		ripening:     newRipening(),
		openAt:       make(map[string]int),
	}
}

// lessID orders ids as their bytes, which is by age.
func lessID(a, b txn.TxID) bool {
	x, y := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(b[:8])
	if x != y {
		return x < y
	}
	return binary.BigEndian.Uint64(a[8:]) < binary.BigEndian.Uint64(b[8:])
}

// transaction finds a transaction; nil where the log does not know it.
func (s *state) transaction(id txn.TxID) *txn.Transaction {
	return s.transactions.get(id).transaction(s.participants)
}

// put replaces prev, which is nil for a new transaction, by next.
func (s *state) put(prev, next *txn.Transaction) {
	s.transactions.put(prev, next)
	was, is := prev != nil && !prev.State.Finished(), !next.State.Finished()
	if was {
		s.countOpen(prev, -1)
	}
	if is {
		s.countOpen(next, +1)
	}
	switch {
	case is && !was:
		s.unfinished.ReplaceOrInsert(next.ID)
	case was && !is:
		s.unfinished.Delete(next.ID)
	}
	if prev != nil && ripens(prev) {
		s.ripening.remove(prev) // an aborted one took over branches: it is owed again
	}
	if ripens(next) {
		s.ripening.add(next)
	}
	switch {
	case next.Troubled():
		s.damaged.ReplaceOrInsert(next.ID)
	case prev != nil && prev.Troubled():
		s.damaged.Delete(next.ID)
	}
}

func (s *state) countOpen(t *txn.Transaction, by int) {
	for i := range t.Branches {
		if t.Branches[i].Resolved != txn.Undecided {
			continue // an operator has given its participant up
		}
		name := t.Branches[i].Participant
		if n := s.openAt[name] + by; n != 0 {
			s.openAt[name] = n
		} else {
			delete(s.openAt, name)
		}
	}
}

// collect forgets at most limit transactions that lie before the horizon, and
// looks at no other.
func (s *state) collect(limit int) (n int) {
	for ; n < limit; n++ {
		oldest, ok := s.ripening.first()
		if !ok || oldest.at >= s.cluster.Horizon {
			break
		}
		s.ripening.pop(oldest)
		s.transactions.drop(oldest.id)
	}
	return n
}

// find tells where a participant stands, or where it would.
func (s *state) find(name string) (place int, ok bool) {
	return slices.BinarySearchFunc(s.participants, name, func(p Participant, name string) int {
		return cmp.Compare(p.Name, name)
	})
}

// putParticipant registers p. The same content again keeps its revision, so that
// a repeated request makes no node open the participant anew. While transactions
// touch it, it stays the resource that it is: their prepared branches are there.
func (s *state) putParticipant(p Participant) (Participant, error) {
	place, ok := s.find(p.Name)
	if ok {
		old := s.participants[place]
		if old.Driver == p.Driver && old.Identity == p.Identity && string(old.Config) == string(p.Config) {
			return old, nil
		}
		if n := s.openAt[p.Name]; n > 0 && old.Identity != "" && old.Identity != p.Identity {
			return Participant{}, fmt.Errorf("%w, and the configuration leads to another resource, %q in the place of %q", inUse(p.Name, n), p.Identity, old.Identity)
		}
	} else if len(s.participants) >= MaxParticipants {
		return Participant{}, ErrTooManyParticipants
	}
	s.revision++
	p.Revision = s.revision
	participants := slices.Clone(s.participants) // readers and snapshots hold the old ones
	if ok {
		participants[place] = p
	} else {
		participants = slices.Insert(participants, place, p)
	}
	s.participants = participants
	return p, nil
}

func (s *state) deleteParticipant(name string) error {
	place, ok := s.find(name)
	switch {
	case !ok:
		return unknownParticipant(name)
	case s.openAt[name] > 0:
		return inUse(name, s.openAt[name])
	}
	s.participants = slices.Concat(s.participants[:place], s.participants[place+1:])
	return nil
}

// registered checks the participants of new branches.
func (s *state) registered(branches []txn.Branch) error {
	var missing []string
	for i := range branches {
		if _, ok := s.find(branches[i].Participant); !ok {
			missing = append(missing, branches[i].Participant)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return unknownParticipant(strings.Join(missing, ", "))
}
