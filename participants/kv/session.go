package kv

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/decree-tx/decree/participants"
)

const (
	// maxPrepared bounds the prepared branches of a file, and with them the locks
	// in memory and the answer of Recover. It is far above what a coordinator has
	// in flight; past it a prepare is voted no.
	maxPrepared = 16384
	// forgetAtOnce bounds how many outcomes behind the horizon one call removes on
	// its way: more than it adds, so that the file shrinks towards the horizon, and
	// few enough not to be felt.
	forgetAtOnce = 16
)

// session is one bbolt transaction, which the calls of one batch share.
type session struct {
	store  *Store
	data   *bbolt.Bucket
	staged *bbolt.Bucket
	ended  *bbolt.Bucket
	meta   *bbolt.Bucket
	dirty  bool  // something was written
	broken error // the transaction can't be trusted any more
}

func newSession(s *Store, tx *bbolt.Tx) *session {
	return &session{
		store:  s,
		data:   tx.Bucket(dataBucket),
		staged: tx.Bucket(stagedBucket),
		ended:  tx.Bucket(outcomeBucket),
		meta:   tx.Bucket(metaBucket),
	}
}

// fail marks the transaction as broken: a call that fails after it began to write
// must not be committed together with its neighbours.
func (s *session) fail(err error) error {
	s.broken = err
	return err
}

func (s *session) put(b *bbolt.Bucket, key []byte, row any) error {
	s.dirty = true
	if err := put(b, key, row); err != nil {
		return s.fail(err)
	}
	return nil
}

func (s *session) remove(b *bbolt.Bucket, key []byte) error {
	s.dirty = true
	if err := b.Delete(key); err != nil {
		return s.fail(err)
	}
	return nil
}

// admit lets a message pass its cluster's fence, and raises it.
func (s *session) admit(b participants.Branch) (participants.Fence, error) {
	key := fenceKey(b.Cluster)
	row, known, err := get[fenceRow](s.meta, key)
	if err != nil {
		return participants.Fence{}, err
	}
	before := participants.Fence(row)
	fence, err := before.Admit(b)
	if err != nil {
		return fence, err
	}
	if fence != before || !known {
		if err := s.put(s.meta, key, fenceRow(fence)); err != nil {
			return fence, err
		}
	}
	return fence, s.forget(b.Cluster, fence)
}

// forget removes some of the outcomes that the horizon has passed. Prepared
// branches are not among them: they wait (rules R7 and R10).
func (s *session) forget(cluster string, fence participants.Fence) error {
	prefix := clusterPrefix(cluster)
	var past [][]byte
	c := s.ended.Cursor()
	for key, _ := c.Seek(prefix); key != nil && bytes.HasPrefix(key, prefix) && len(past) < forgetAtOnce; key, _ = c.Next() {
		b, err := parseBranchKey(key)
		if err != nil {
			return err
		}
		if !fence.Expired(b.TxID) {
			break
		}
		past = append(past, bytes.Clone(key)) // removing moves what the cursor shows
	}
	for _, key := range past {
		if err := s.remove(s.ended, key); err != nil {
			return err
		}
	}
	return nil
}

// recall is what is remembered of a branch, and what it has staged.
func (s *session) recall(b participants.Branch) (participants.Record, stage, error) {
	key := branchKey(b)
	staged, ok, err := get[stage](s.staged, key)
	if err != nil {
		return participants.Record{}, stage{}, err
	}
	if ok {
		r := participants.Record{Status: participants.StatusPrepared}
		copy(r.Digest[:], staged.Digest)
		return r, staged, nil
	}
	ended, ok, err := get[outcome](s.ended, key)
	if err != nil {
		return participants.Record{}, stage{}, err
	}
	if !ok {
		return participants.Record{}, stage{}, nil
	}
	return ended.record(), stage{}, nil
}

// remember writes the outcome of a branch.
func (s *session) remember(b participants.Branch, r participants.Record) error {
	row := outcome{Committed: r.Status == participants.StatusCommitted, Reason: r.Reason}
	if row.Committed {
		row.Digest = r.Digest[:]
	}
	return s.put(s.ended, branchKey(b), row)
}

// prepare votes on a branch whose payload was read before; malformed is what was
// wrong with it.
func (s *session) prepare(b participants.Branch, ops []op, malformed error) (participants.Vote, error) {
	fence, err := s.admit(b)
	if err != nil {
		return participants.Vote{}, err
	}
	r, _, err := s.recall(b)
	if err != nil {
		return participants.Vote{}, err
	}
	if vote, known := r.Prepare(fence, b); known {
		return vote, nil
	}
	next, refusal := s.assess(ops, malformed)
	if refusal != nil {
		vote := participants.No("%v", refusal)
		return vote, s.remember(b, participants.Refused(vote))
	}
	if len(next.Changes) == 0 {
		return participants.ReadOnly(), nil
	}
	next.Digest = b.Digest[:]
	if err := s.put(s.staged, branchKey(b), next); err != nil {
		return participants.Vote{}, err
	}
	if err := s.store.hold(holderOf(b), next); err != nil {
		return participants.Vote{}, s.fail(err)
	}
	return participants.Yes(), nil
}

// assess works out what a new branch would do, or why it may not.
func (s *session) assess(ops []op, malformed error) (stage, error) {
	if malformed != nil {
		return stage{}, malformed
	}
	if err := s.store.locks.refuse(ops); err != nil {
		return stage{}, err
	}
	next, err := evaluate(ops, func(key string) (string, bool) {
		v := s.data.Get([]byte(key))
		return string(v), v != nil
	})
	if err == nil && len(next.Changes) > 0 && s.store.prepared >= maxPrepared {
		err = fmt.Errorf("%d branches are prepared here, and no more may be", maxPrepared)
	}
	return next, err
}

// decision is participants.Record.Commit or participants.Record.Abort.
type decision func(participants.Record, participants.Fence, participants.Branch) (participants.Record, error)

// end moves a branch to its outcome.
func (s *session) end(b participants.Branch, decide decision) error {
	fence, err := s.admit(b)
	if err != nil {
		return err
	}
	before, staged, err := s.recall(b)
	if err != nil {
		return err
	}
	after, verdict := decide(before, fence, b)
	if after.Status == before.Status {
		return verdict
	}
	if before.Status == participants.StatusPrepared {
		if err := s.release(b, staged, after.Status == participants.StatusCommitted); err != nil {
			return err
		}
	}
	if err := s.remember(b, after); err != nil {
		return err
	}
	return verdict
}

// release ends the staging of a branch, and makes its changes where it is
// committed.
func (s *session) release(b participants.Branch, staged stage, committed bool) error {
	for _, c := range staged.Changes {
		if !committed {
			break
		}
		if err := s.apply(c); err != nil {
			return err
		}
	}
	s.store.unhold(holderOf(b), staged)
	return s.remove(s.staged, branchKey(b))
}

func (s *session) apply(c change) error {
	if c.Value == nil {
		return s.remove(s.data, []byte(c.Key))
	}
	s.dirty = true
	if err := s.data.Put([]byte(c.Key), []byte(*c.Value)); err != nil {
		return s.fail(err)
	}
	return nil
}
