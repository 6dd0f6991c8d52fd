package txn

// At places an entry: the cluster context after its header was admitted, and its
// index in the log.
type At struct {
	Cluster
	Index uint64
}

func (at At) stamp() Stamp { return Stamp{Index: at.Index, Epoch: at.Epoch, At: at.Now} }

// Step applies a command to the transaction that it names; t is nil where the log
// does not know it. It returns the state after the command, which is t itself
// when nothing changed, and the work that this step made due.
//
// A command that repeats what is already so changes nothing and is no error, and
// a decision that comes second is answered with the first (rule R1): the caller
// reads the outcome from the state returned, never from what it proposed. An
// error means that the command was refused and changed nothing.
//
// The caller has admitted the entry's header (see [Cluster.Admit]); a command of
// an older epoch never gets here.
func Step(at At, t *Transaction, c Command) (*Transaction, []Work, error) {
	next, err := step(at, t, c)
	if err != nil {
		return t, nil, err
	}
	return next, effects(t, next), nil
}

func step(at At, t *Transaction, c Command) (*Transaction, error) {
	if t == nil {
		if err := at.CheckGroup(c.Transaction()); err != nil {
			return nil, err // whatever it is: here no transaction begins of it
		}
	}
	switch c := c.(type) {
	case Stage:
		return stage(at, t, c)
	case Enlist:
		return enlist(at, t, c)
	case Prepare:
		return prepare(at, t, c)
	case Decide:
		return decide(at, t, c)
	case Presume:
		return presume(at, t, c)
	case Arbitrate:
		return arbitrate(at, t, c)
	case Acknowledge:
		return acknowledge(at, t, c)
	case Resolve:
		return resolve(at, t, c)
	default:
		panic("txn: unknown command") // the decoder knows no others
	}
}

func stage(at At, t *Transaction, c Stage) (*Transaction, error) {
	print := ContentFingerprint(c.Interactive, c.Branches)
	if t != nil {
		if t.Tombstone() || t.Fingerprint == print && !t.Owner.Foreign(c.Owner) {
			return t, nil
		}
		return nil, ErrContentMismatch
	}
	if err := at.CheckID(c.ID); err != nil {
		return nil, err
	}
	t = &Transaction{
		ID:          c.ID,
		State:       Active,
		Interactive: c.Interactive,
		Fingerprint: print,
		Timeout:     c.Timeout,
		Owner:       c.Owner,
		Staged:      at.stamp(),
	}
	if c.Interactive {
		if len(c.Branches) != 0 {
			return nil, ErrSealed
		}
		return t, nil
	}
	if err := checkBranches(c.Branches); err != nil {
		return nil, err
	}
	t.State = Preparing
	t.Branches = c.Branches
	return t, nil
}

func checkBranches(branches []Branch) error {
	switch {
	case len(branches) == 0:
		return ErrEmpty
	case len(branches) > MaxBranches:
		return ErrTooManyBranches
	}
	for i, b := range branches {
		for _, earlier := range branches[:i] {
			if b.Participant == earlier.Participant {
				return ErrDuplicateBranch
			}
		}
	}
	return nil
}

func enlist(at At, t *Transaction, c Enlist) (*Transaction, error) {
	switch {
	case t == nil:
		return nil, ErrUnknown
	case at.Held(t):
		return nil, ErrLost
	}
	if n := t.Branch(c.Branch.Participant); n != 0 {
		if b := t.Branches[n-1]; b.Digest == c.Branch.Digest && b.External == c.Branch.External {
			return t, nil
		}
		return nil, ErrDuplicateBranch
	}
	switch {
	case t.State != Active:
		return nil, ErrSealed
	case len(t.Branches) == MaxBranches:
		return nil, ErrTooManyBranches
	}
	next := t.clone()
	next.Branches = append(next.Branches, c.Branch)
	return next, nil
}

func prepare(at At, t *Transaction, c Prepare) (*Transaction, error) {
	switch {
	case t == nil:
		return nil, ErrUnknown
	case at.Held(t):
		return nil, ErrLost
	case t.State != Active:
		return t, nil
	case len(t.Branches) == 0:
		return nil, ErrEmpty
	}
	next := t.clone()
	next.State = Preparing
	for _, v := range c.Votes {
		if v.Branch < 1 || v.Branch > len(next.Branches) || !next.Branches[v.Branch-1].External {
			return nil, ErrNoSuchBranch
		}
		b := &next.Branches[v.Branch-1]
		if b.Vote != VoteNone && b.Vote != v.Vote {
			return nil, ErrVotedTwice
		}
		b.Vote = v.Vote
	}
	for i, b := range next.Branches {
		if b.External && b.Vote == VoteNone {
			next.Branches[i].Vote = VoteAbort // sealed without its vote: it can never come
		}
	}
	return next, nil
}

// decide is the commit point. What a crash just before and just after it does is
// told in the package comment.
func decide(at At, t *Transaction, c Decide) (*Transaction, error) {
	switch c.Decision {
	case Commit:
		return decideCommit(at, t, c)
	case Abort:
		return decideAbort(at, t, c)
	default:
		panic("txn: a decision is commit or abort") // the decoder knows no others
	}
}

func decideCommit(at At, t *Transaction, c Decide) (*Transaction, error) {
	switch {
	case t == nil:
		return nil, ErrUnknown
	case t.State.Decided():
		return t, nil // R1: the first decision wins
	case at.Held(t):
		return nil, ErrLost // the first decision may be a lost one
	case t.State != Preparing:
		return nil, ErrNotPrepared
	case votedNo(t.Branches):
		return nil, ErrAgainstVote
	}
	next := decided(at, t, Committing)
	for _, n := range c.ReadOnly {
		if n < 1 || n > len(next.Branches) {
			return nil, ErrNoSuchBranch
		}
		b := &next.Branches[n-1]
		if b.Vote == VoteCommit {
			return nil, ErrAgainstVote // it is prepared, and would never hear of the commit
		}
		b.Vote = VoteReadOnly
	}
	return settle(at, next), nil
}

// votedNo reports whether a vote that is replicated forbids the commit. The
// leader's ballot says so first; the state machine doesn't depend on it.
func votedNo(branches []Branch) bool {
	for _, b := range branches {
		if b.Vote == VoteAbort {
			return true
		}
	}
	return false
}

func decideAbort(at At, t *Transaction, c Decide) (*Transaction, error) {
	if len(c.Branches) > 0 {
		if err := checkBranches(c.Branches); err != nil {
			return nil, err
		}
	}
	switch {
	case t == nil && at.Lost(c.ID), t != nil && at.Held(t):
		return nil, ErrLost // the first decision may be a lost one
	case t == nil && len(c.Branches) == 0:
		if err := at.CheckID(c.ID); err != nil {
			return nil, err // nobody can have prepared under it, so nothing is owed
		}
		fallthrough
	case t == nil:
		t = &Transaction{ID: c.ID, Staged: at.stamp()}
	case !t.Tombstone() && len(c.Branches) > 0:
		return nil, ErrContentMismatch // staged with other content: its fate is not the proposer's to seal
	case t.Tombstone() && t.Decision() == Abort && len(t.Branches) == 0 && len(c.Branches) > 0:
		return settle(at, adopt(t, c.Branches)), nil
	case t.State.Decided():
		return t, nil // R1: the first decision wins
	}
	next := decided(at, t, Aborting)
	next.Reason = c.Reason
	if t.Tombstone() {
		next = adopt(next, c.Branches)
	}
	return settle(at, next), nil
}

// adopt gives a tombstone the branches to which prepares left, so that the abort,
// which stands already, reaches them.
func adopt(t *Transaction, branches []Branch) *Transaction {
	next := t.clone()
	next.State = Aborting
	next.Finished = Stamp{}
	next.Branches = append([]Branch(nil), branches...)
	forgetPayloads(next)
	return next
}

func presume(at At, t *Transaction, c Presume) (*Transaction, error) {
	if t != nil {
		return t, nil
	}
	return decideAbort(at, nil, Decide{ID: c.ID, Decision: Abort, Reason: Reason{Code: ReasonPresumed}})
}

// arbitrate makes the decision that an operator has found to be right. Of a transaction
// whose branches may not all be known, the content counts as unknown from here on: what
// is found prepared of it is ended by the decision (see [Orphan]).
func arbitrate(at At, t *Transaction, c Arbitrate) (*Transaction, error) {
	switch {
	case t == nil && !at.Lost(c.ID) && c.ID.Time() >= at.Horizon:
		return nil, ErrNotLost
	case t == nil:
		t = &Transaction{ID: c.ID, Staged: at.stamp()}
	case t.State.Decided():
		return t, nil // R1: the first decision wins
	case !at.Held(t):
		return nil, ErrNotLost
	}
	state := Committing
	if c.Decision == Abort {
		state = Aborting
	}
	next := decided(at, t, state)
	if t.State != Preparing {
		next.Fingerprint = Fingerprint{}
	}
	for i := range next.Branches {
		next.Branches[i].Vote = VoteNone // a no from before the restore does not speak against the decision
	}
	if c.Decision == Abort {
		next.Reason = Reason{Code: ReasonOperator, Detail: c.Detail}
	}
	return settle(at, next), nil
}

func acknowledge(at At, t *Transaction, c Acknowledge) (*Transaction, error) {
	switch {
	case t == nil:
		return nil, ErrUnknown
	case !t.State.Decided():
		return nil, ErrUndecided
	}
	next := t.clone()
	changed := false
	for _, r := range c.Receipts {
		if r.Branch < 1 || r.Branch > len(next.Branches) {
			return nil, ErrNoSuchBranch
		}
		if b := &next.Branches[r.Branch-1]; b.Owed() && r.Receipt != ReceiptNone {
			b.Receipt = settled(r.Receipt, next.Decision())
			changed = true
		}
	}
	if !changed {
		return t, nil
	}
	return settle(at, next), nil
}

// resolve ends what a branch is owed, or takes note of its damage. A branch that has
// carried out the decision, or has nothing to carry out, has nothing to be resolved.
func resolve(at At, t *Transaction, c Resolve) (*Transaction, error) {
	switch {
	case t == nil:
		return nil, ErrUnknown
	case !t.State.Decided():
		return nil, ErrUndecided
	case c.Branch < 1 || c.Branch > len(t.Branches):
		return nil, ErrNoSuchBranch
	}
	b := t.Branches[c.Branch-1]
	switch {
	case b.Resolved == c.As:
		return t, nil
	case b.Resolved != Undecided:
		return nil, ErrResolved
	case !b.Owed() && !b.Receipt.Heuristic():
		return nil, ErrSettled
	}
	next := t.clone()
	next.Branches[c.Branch-1].Resolved = c.As
	if t.State.Finished() {
		return next, nil
	}
	return settle(at, next), nil
}

// settled is what a receipt means under a decision: a participant that decided
// alone, and as everyone else did, is no damage.
func settled(r Receipt, d Decision) Receipt {
	if r == HeuristicCommit && d == Commit || r == HeuristicAbort && d == Abort {
		return Done
	}
	return r
}

// decided copies t into a decided state, without the payloads that only
// preparing needs.
func decided(at At, t *Transaction, s State) *Transaction {
	next := t.clone()
	next.State = s
	next.Decided = at.stamp()
	forgetPayloads(next)
	return next
}

func forgetPayloads(t *Transaction) {
	for i := range t.Branches {
		t.Branches[i].Payload = nil
	}
}

// settle finishes a decided transaction once no branch is owed anything. It may
// change next, which nobody else has seen yet.
func settle(at At, next *Transaction) *Transaction {
	for _, b := range next.Branches {
		if b.Owed() {
			return next
		}
	}
	switch next.State {
	case Committing:
		next.State = Committed
	case Aborting:
		next.State = Aborted
	}
	next.Finished = at.stamp()
	return next
}
