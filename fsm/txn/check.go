package txn

import (
	"errors"
	"fmt"
)

// Check reports the first way in which t is a state that [Step] never makes. A
// snapshot that holds such a transaction is not to be trusted.
func (t *Transaction) Check() error {
	if t.State < Active || t.State > Aborted {
		return fmt.Errorf("there is no %s", t.State)
	}
	if err := t.checkStamps(); err != nil {
		return err
	}
	if err := t.checkBranches(); err != nil {
		return err
	}
	switch {
	case t.Tombstone() && t.Decision() == Undecided:
		return fmt.Errorf("it is %s, but its content is unknown", t.State)
	case (t.Decision() == Abort) != (t.Reason.Code != ReasonNone):
		return fmt.Errorf("it is %s with reason %s", t.State, t.Reason)
	case t.State == Active && !t.Interactive:
		return errors.New("it is Active, but not interactive")
	}
	return nil
}

func (t *Transaction) checkStamps() error {
	switch {
	case t.Staged == Stamp{}:
		return errors.New("no entry made it known")
	case t.State.Decided() != (t.Decided != Stamp{}):
		return fmt.Errorf("it is %s, but decided by entry %d", t.State, t.Decided.Index)
	case t.State.Finished() != (t.Finished != Stamp{}):
		return fmt.Errorf("it is %s, but finished by entry %d", t.State, t.Finished.Index)
	}
	return nil
}

func (t *Transaction) checkBranches() error {
	if len(t.Branches) > 0 || t.State == Preparing || t.Decision() == Commit && !t.Tombstone() {
		if err := checkBranches(t.Branches); err != nil {
			return err
		}
	}
	owed := false
	for i, b := range t.Branches {
		owed = owed || b.Owed()
		if t.State.Decided() && b.Payload != nil {
			return fmt.Errorf("branch %d keeps its payload past the decision", i+1)
		}
		if b.Resolved > Abort || b.Resolved != Undecided && (!t.State.Decided() || b.Receipt == Done || b.Vote == VoteReadOnly) {
			return fmt.Errorf("branch %d is resolved as %s, but had nothing to be resolved", i+1, b.Resolved)
		}
		if !t.State.Decided() && b.Receipt != ReceiptNone {
			return fmt.Errorf("branch %d has a receipt before the decision", i+1)
		}
		if t.Decision() == Commit && b.Vote == VoteAbort {
			return fmt.Errorf("it is %s, but branch %d voted no", t.State, i+1)
		}
	}
	if t.State.Decided() && owed == t.State.Finished() {
		return fmt.Errorf("it is %s, but that some branch is owed a delivery is %t", t.State, owed)
	}
	return nil
}
