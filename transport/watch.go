package transport

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// Watch implements the RPC, from what this node applies. Of one transaction that
// is not known yet it waits for the first state.
func (s *transactions) Watch(req *decreev1.WatchRequest, stream grpc.ServerStreamingServer[decreev1.WatchResponse]) error {
	var one *txn.TxID
	if req.GetTxid() != "" {
		id, err := txidOf(req.GetTxid())
		if err != nil {
			return refuse(err, req.GetTxid())
		}
		one = &id
	}
	select {
	case s.watches <- struct{}{}:
		defer func() { <-s.watches }()
	default:
		return refuse(&coordinator.BusyError{What: "too many watches at this node", RetryAfter: busyDelay}, req.GetTxid())
	}
	err := s.follow(stream.Context(), one, func(t *txn.Transaction) error {
		return stream.Send(&decreev1.WatchResponse{Transaction: transactionMessage(t, nil)})
	})
	if err != nil && s.ended.Err() != nil {
		err = errStopping
	}
	return refuse(err, req.GetTxid())
}

// follow sends the changes of one transaction, from its present state to its end,
// or those of all without an end. It watches first and reads the present state
// then, so that nothing is missed, and leaves out what came between the two.
func (s *transactions) follow(ctx context.Context, one *txn.TxID, send func(*txn.Transaction) error) error {
	caller := coordinator.CallerOf(ctx)
	w := s.cfg.Machine.Watch(one)
	defer w.Close()
	var last *txn.Transaction
	if one != nil {
		last, _ = s.seen(ctx, *one)
	}
	if last != nil {
		if err := send(last); err != nil {
			return err
		}
	}
	for one == nil || last == nil || !last.State.Finished() {
		t, err := w.Next(ctx)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		if !caller.Sees(t) || one != nil && last != nil && !later(t, last) {
			continue
		}
		if err := send(t); err != nil {
			return err
		}
		last = t
	}
	return nil
}

// later reports whether t is a state of the transaction after last. Branches are
// only added, states only advance and receipts only arrive; an abort that takes
// over branches goes back from Aborted to Aborting, and adds them.
func later(t, last *txn.Transaction) bool {
	if len(t.Branches) != len(last.Branches) {
		return len(t.Branches) > len(last.Branches)
	}
	if t.State != last.State {
		return t.State > last.State
	}
	return receipts(t) > receipts(last)
}

func receipts(t *txn.Transaction) int {
	n := 0
	for _, b := range t.Branches {
		if b.Receipt != txn.ReceiptNone {
			n++
		}
	}
	return n
}
