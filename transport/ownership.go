package transport

import (
	"context"
	"time"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/transport/certs"
)

// This file says whose transactions somebody sees and ends: a client those that it
// began, an operator and a reader all, a participant those with a branch of its own.
// What is another's is as if the log did not know it. Whoever asks for the outcome of a
// txid that the log really does not know has it aborted, and so learns that it was not
// there; txids hold 74 random bits, so that nobody comes to ask for another's.

// callerAs is what a caller is to the coordinator.
func callerAs(who certs.Identity) coordinator.Caller {
	owner := txn.OwnerOf(who.String())
	switch who.Role {
	case "":
		return coordinator.Caller{} // callers are not asked who they are
	case certs.Operator, certs.Reader:
		return coordinator.Caller{Owner: owner, All: true}
	case certs.Participant:
		return coordinator.Caller{Owner: owner, Participant: who.Name}
	default:
		return coordinator.Caller{Owner: owner}
	}
}

// seen is a transaction as it is applied here, if it is there for the caller.
func (s *Server) seen(ctx context.Context, id txn.TxID) (*txn.Transaction, bool) {
	t, ok := s.cfg.Machine.Transaction(id)
	if !ok || !coordinator.CallerOf(ctx).Sees(t) {
		return nil, false
	}
	return t, true
}

// ownerDelay is when a client that is too early tries again: the leader of a new
// cluster needs some moments to hear of all nodes, and one that is being upgraded more.
const ownerDelay = time.Second

// recordable refuses to begin what would be nobody's: the log may not hold owners yet.
func (s *Server) recordable(owner txn.Owner) error {
	if !owner.Known() || s.cfg.Machine.Level() >= fsm.LevelOwner {
		return nil
	}
	return &coordinator.BusyError{What: "whose a transaction is can't be recorded before all nodes are upgraded", RetryAfter: ownerDelay}
}
