package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

const (
	// maxBranches bounds what a service remembers to some hundred megabytes. Past
	// it prepares are voted no, and calls about unknown branches fail, until the
	// horizon lets it forget.
	maxBranches = 1 << 21
	// sweepFrom is how many new branches come at least before it is worth looking
	// for old ones that may be forgotten.
	sweepFrom = 1024
)

// Service is what is simulated: a staging area, and a memory of what became of
// each branch. It is safe for concurrent use.
type Service struct {
	apply func(payload []byte) // nil, or called once for each commit

	mu       sync.Mutex // guards what follows
	branches map[branchID]*branch
	fences   map[string]participants.Fence
	sweepIn  int // so many new branches until it looks for some to forget
	counts   Counts
}

type branchID struct {
	cluster string
	txid    txn.TxID
	number  int
}

func idOf(b participants.Branch) branchID { return branchID{b.Cluster, b.TxID, b.Number} }

// branch is all that the service has of one branch.
type branch struct {
	participants.Record
	*staging // nil once it has ended
}

// staging is what the service has of a branch until it ends.
type staging struct {
	payload  []byte
	wish     wish
	attempts [abort + 1]uint64 // at each kind of call
}

// Counts tells what a service has done since it was made.
type Counts struct {
	Prepared, ReadOnly, Refused uint64 // votes on new branches
	Committed, Aborted          uint64 // branches that ended so
}

// NewService makes an empty service. apply, which may be nil, is the effect of a
// commit: it is called once for each committed branch, with its payload, and
// must not call back.
func NewService(apply func(payload []byte)) *Service {
	return &Service{
		apply:    apply,
		branches: map[branchID]*branch{},
		fences:   map[string]participants.Fence{},
		sweepIn:  sweepFrom,
	}
}

// Participant makes a participant over the service, with a behaviour of its own.
// Its Close leaves the service as it is.
func (s *Service) Participant(c Config, log hclog.Logger) (participants.Participant, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("sim configuration: %w", err)
	}
	seed := rand.Uint64()
	if c.Seed != nil {
		seed = *c.Seed
	}
	log.Info("simulated service: in memory only, ends with this process", "seed", seed)
	return &participant{service: s, config: c, seed: seed}, nil
}

// Counts tells what the service has done.
func (s *Service) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// entry finds a branch, or makes room for it. The caller has mu.
func (s *Service) entry(b participants.Branch) (*branch, error) {
	known := s.branches[idOf(b)]
	if known != nil {
		return known, nil
	}
	s.sweep()
	if len(s.branches) >= maxBranches {
		return nil, fmt.Errorf("the simulated service remembers %d branches, and has no room for more", len(s.branches))
	}
	known = &branch{staging: new(staging)}
	s.branches[idOf(b)] = known
	return known, nil
}

// sweep forgets branches behind their cluster's horizon, all but the prepared
// (rules R7 and R11). It looks once for as many new branches as there were when it
// looked last, which makes it cheap for each of them. The caller has mu.
func (s *Service) sweep() {
	if s.sweepIn--; s.sweepIn > 0 {
		return
	}
	for id, known := range s.branches {
		if known.Status != participants.StatusPrepared && s.fences[id.cluster].Expired(id.txid) {
			delete(s.branches, id)
		}
	}
	s.sweepIn = max(sweepFrom, len(s.branches))
}

// ask counts an attempt to end a branch, and tells the delay that the branch's
// payload wished for.
func (s *Service) ask(o op, b participants.Branch) (attempt uint64, delay Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, err := s.entry(b)
	if err != nil {
		return 0, 0, err
	}
	if known.staging == nil {
		return 0, 0, nil
	}
	known.attempts[o]++
	delay = known.wish.CommitDelay
	if o == abort {
		delay = known.wish.AbortDelay
	}
	return known.attempts[o], delay, nil
}

// admit lets a message pass its cluster's fence, and raises it. The caller has
// mu.
func (s *Service) admit(b participants.Branch) (participants.Fence, error) {
	fence, err := s.fences[b.Cluster].Admit(b)
	if err == nil {
		s.fences[b.Cluster] = fence
	}
	return fence, err
}

// prepare votes: from memory, or with answer where the branch is new.
func (s *Service) prepare(b participants.Branch, w wish, answer participants.Vote) (participants.Vote, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fence, err := s.admit(b)
	if err != nil {
		return participants.Vote{}, err
	}
	known, err := s.entry(b)
	if err != nil {
		return participants.No("%v", err), nil
	}
	if vote, ok := known.Prepare(fence, b); ok {
		return vote, nil
	}
	switch answer.Kind {
	case txn.VoteCommit:
		s.counts.Prepared++
		known.Record, known.payload, known.wish = b.Prepared(), bytes.Clone(b.Payload), w
	case txn.VoteReadOnly:
		s.counts.ReadOnly++
	default:
		s.counts.Refused++
		known.Record, known.staging = participants.Refused(answer), nil
	}
	return answer, nil
}

// decision is participants.Record.Commit or participants.Record.Abort.
type decision func(participants.Record, participants.Fence, participants.Branch) (participants.Record, error)

// end moves a branch to its outcome.
func (s *Service) end(b participants.Branch, decide decision) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fence, err := s.admit(b)
	if err != nil {
		return err
	}
	known, err := s.entry(b)
	if err != nil {
		return err
	}
	before, staged := known.Status, known.staging
	known.Record, err = decide(known.Record, fence, b)
	if known.Status == before {
		return err
	}
	known.staging = nil
	switch {
	case before != participants.StatusPrepared: // nothing was staged
	case known.Status == participants.StatusAborted:
		s.counts.Aborted++
	default:
		s.counts.Committed++
		if s.apply != nil {
			s.apply(staged.payload)
		}
	}
	return err
}

func (s *Service) prepared(cluster string) []participants.Branch {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []participants.Branch
	for id, known := range s.branches {
		if id.cluster == cluster && known.Status == participants.StatusPrepared {
			list = append(list, participants.Branch{Cluster: cluster, TxID: id.txid, Number: id.number})
		}
	}
	slices.SortFunc(list, func(a, b participants.Branch) int {
		return cmp.Or(slices.Compare(a.TxID[:], b.TxID[:]), cmp.Compare(a.Number, b.Number))
	})
	return list
}

func (s *Service) status(b participants.Branch) participants.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.branches[idOf(b)]; known != nil {
		return known.Status
	}
	return participants.StatusUnknown
}
