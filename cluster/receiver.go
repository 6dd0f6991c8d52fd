package cluster

import (
	"context"
	"errors"
	"io"

	"github.com/hashicorp/raft"
)

// receiver hands the other nodes' messages to Raft, one after the other, as Raft deals
// with them, and makes up for what Raft gets wrong where a log and a snapshot meet.
//
// A late snapshot. Raft installs any snapshot of the present term. One that was sent
// twice, because its connection was given up, can come seconds late, and takes the state
// machine back to what it was; the entries since then may be in the log no more, and the
// node panics at the next one that is committed. A snapshot that the node is past is
// answered here: it has it. While Raft has no message, that does not change.
//
// What a snapshot overrules. A follower may hold entries that were never committed. Raft
// leaves those in the log that an installed snapshot stands for; as leader it would send
// them to a node that holds the same ones, and that node would apply them. They are
// deleted here, as the Raft paper has it (figure 13, step 7).
//
// What follows a snapshot. Raft accepts entries if it has the one before them in its log,
// and does not look into its snapshot for that, unless its log ends there. A follower
// whose log begins after its snapshot, with entries that another leader has since
// overruled, would refuse all entries for ever.
type receiver struct {
	raft      *raft.Raft
	log       raft.LogStore
	snapshots raft.SnapshotStore
	toRaft    chan<- raft.RPC
	answers   chan raft.RPCResponse // to the one message that Raft has
}

func newReceiver(r *raft.Raft, log raft.LogStore, snapshots raft.SnapshotStore, toRaft chan<- raft.RPC) *receiver {
	return &receiver{r, log, snapshots, toRaft, make(chan raft.RPCResponse, 1)}
}

// run receives until ctx ends, which is the port's.
func (r *receiver) run(ctx context.Context, messages <-chan raft.RPC) {
	for {
		select {
		case m := <-messages:
			answer := r.receive(ctx, m)
			if ctx.Err() != nil {
				return
			}
			m.RespChan <- answer // it has room for one
		case <-ctx.Done():
			return
		}
	}
}

func (r *receiver) receive(ctx context.Context, m raft.RPC) raft.RPCResponse {
	switch c := m.Command.(type) {
	case *raft.InstallSnapshotRequest:
		return r.install(ctx, m, c)
	case *raft.AppendEntriesRequest:
		return r.append(ctx, m, c)
	}
	return r.hand(ctx, m)
}

// hand has Raft deal with a message; the answer is void where ctx has ended.
func (r *receiver) hand(ctx context.Context, m raft.RPC) (answer raft.RPCResponse) {
	m.RespChan = r.answers
	select {
	case r.toRaft <- m:
	case <-ctx.Done():
		return answer
	}
	select {
	case answer = <-r.answers:
	case <-ctx.Done():
	}
	return answer
}

func (r *receiver) install(ctx context.Context, m raft.RPC, s *raft.InstallSnapshotRequest) raft.RPCResponse {
	if r.isPast(s.LastLogIndex) {
		_, err := io.Copy(io.Discard, m.Reader)
		have := &raft.InstallSnapshotResponse{RPCHeader: s.RPCHeader, Term: s.Term, Success: err == nil}
		return raft.RPCResponse{Response: have, Error: err}
	}
	answer := r.hand(ctx, m)
	if a, ok := answer.Response.(*raft.InstallSnapshotResponse); ok && a.Success {
		answer.Error = errors.Join(answer.Error, dropOverruled(r.log, r.snapshots))
	}
	return answer
}

// isPast is whether Raft has applied more than the entries up to an index, and its log
// tells so. The log lags behind where a snapshot was installed while the node took one
// of its own: then the leader goes by what the log tells, and must be let.
func (r *receiver) isPast(index uint64) bool {
	applied := r.raft.AppliedIndex()
	return index < applied && r.raft.LastIndex() >= applied
}

// append tries entries again that follow the snapshot directly, and for Raft's eyes
// nothing. Without entries it must not: Raft takes all that it has for committed then,
// as far as the leader has committed.
func (r *receiver) append(ctx context.Context, m raft.RPC, c *raft.AppendEntriesRequest) raft.RPCResponse {
	answer := r.hand(ctx, m)
	a, ok := answer.Response.(*raft.AppendEntriesResponse)
	if !ok || a.Success || len(c.Entries) == 0 || !r.endsSnapshot(c.PrevLogEntry, c.PrevLogTerm) {
		return answer
	}
	first := *c
	first.PrevLogEntry, first.PrevLogTerm = 0, 0
	m.Command = &first
	return r.hand(ctx, m)
}

// endsSnapshot is whether an entry is the last one of the newest snapshot.
func (r *receiver) endsSnapshot(index, term uint64) bool {
	list, err := r.snapshots.List()
	return err == nil && len(list) > 0 && list[0].Index == index && list[0].Term == term &&
		r.raft.AppliedIndex() >= index
}

// dropOverruled deletes what the newest snapshot stands for from a log that does not
// lead up to that snapshot.
func dropOverruled(log raft.LogStore, snapshots raft.SnapshotStore) error {
	list, err := snapshots.List()
	if err != nil || len(list) == 0 {
		return err
	}
	newest := list[0]
	var last raft.Log
	if err := log.GetLog(newest.Index, &last); err == nil && last.Term == newest.Term {
		return nil
	} else if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	from, err := log.FirstIndex()
	if err != nil || from == 0 || from > newest.Index {
		return err
	}
	to, err := log.LastIndex()
	if err != nil {
		return err
	}
	return log.DeleteRange(from, min(to, newest.Index))
}
