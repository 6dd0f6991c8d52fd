package transport

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// transactions is decree.v1.Transactions.
type transactions struct {
	decreev1.UnimplementedTransactionsServer
	*Server
}

func leaderClient(conn *grpc.ClientConn) decreev1.TransactionsClient {
	return decreev1.NewTransactionsClient(conn)
}

// Submit implements the RPC.
func (s *transactions) Submit(ctx context.Context, req *decreev1.SubmitRequest) (*decreev1.SubmitResponse, error) {
	x := newSubmitting(s)
	if err := x.begin(req, coordinator.CallerOf(ctx)); err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	r, err := route(ctx, s.Server, &x.errand)
	if err != nil {
		return nil, err
	}
	r.Txid = req.GetTxid()
	return &decreev1.SubmitResponse{Result: r}, nil
}

// submitting is a submission on its way to its result, by whatever way it came. It
// may be used again, for another one, when nobody reads its result any more.
type submitting struct {
	server *transactions // set once
	errand errand[*decreev1.Result]
	req    *decreev1.SubmitRequest
	sub    coordinator.Submission
	result *decreev1.Result // nil until there is one: a submission may wait for long
}

func newSubmitting(s *transactions) *submitting {
	x := &submitting{server: s}
	x.errand.local, x.errand.remote, x.errand.settled = x.local, x.remote, x.settled
	return x
}

// begin checks a request. One without a txid is given one.
func (x *submitting) begin(req *decreev1.SubmitRequest, by coordinator.Caller) error {
	if req.GetTxid() == "" {
		id, err := newTxID(x.server.cfg.Machine.Cluster().Group)
		if err != nil {
			return err
		}
		req.Txid = id.String()
	}
	sub, err := x.server.parseSubmission(req)
	sub.Owner = by.Owner
	x.req, x.sub = req, sub
	x.errand.txid, x.errand.ran, x.errand.failed = req.GetTxid(), false, nil
	x.errand.budget = orDefault(sub.Timeout, x.server.cfg.DefaultTimeout) + callBudget
	return err
}

func (x *submitting) local(ctx context.Context) (*decreev1.Result, error) {
	if err := x.server.recordable(x.sub.Owner); err != nil {
		return nil, err
	}
	r, err := x.server.cfg.Coordinator.Submit(ctx, x.sub)
	if err != nil {
		return nil, err
	}
	return x.answer(r), nil
}

func (x *submitting) remote(ctx context.Context, conn *grpc.ClientConn) (*decreev1.Result, error) {
	return x.server.link.submit(ctx, conn, x.request())
}

// request is what was asked for. While it waits only what it says is kept.
func (x *submitting) request() *decreev1.SubmitRequest {
	if x.req != nil {
		return x.req
	}
	x.req = &decreev1.SubmitRequest{Txid: x.errand.txid, Wait: decreev1.Wait_WAIT_DELIVERY}
	if x.sub.Wait == coordinator.WaitDecision {
		x.req.Wait = decreev1.Wait_WAIT_DECISION
	}
	if x.sub.Timeout != 0 {
		x.req.Timeout = durationpb.New(x.sub.Timeout)
	}
	for _, b := range x.sub.Branches {
		x.req.Branches = append(x.req.Branches, &decreev1.NewBranch{
			Participant: b.Participant, Content: &decreev1.NewBranch_Payload{Payload: b.Payload},
		})
	}
	return x.req
}

func (x *submitting) settled() (*decreev1.Result, bool) {
	r, ok := x.server.applied(context.Background(), x.sub.ID)
	same := ok && (r.Transaction.Tombstone() || !r.Transaction.Owner.Foreign(x.sub.Owner) &&
		r.Transaction.Fingerprint == txn.ContentFingerprint(false, x.sub.Branches))
	if !same {
		return nil, false
	}
	return x.answer(r), true
}

// answer is the result without its txid, which the request has.
func (x *submitting) answer(r coordinator.Result) *decreev1.Result {
	if x.result == nil {
		x.result = &decreev1.Result{}
	}
	x.result.Reset()
	tell(x.result, r)
	return x.result
}

func (s *Server) parseSubmission(req *decreev1.SubmitRequest) (coordinator.Submission, error) {
	var bad invalidError
	sub := coordinator.Submission{
		ID:       parseTxID(req.GetTxid(), &bad),
		Branches: parseBranches(req.GetBranches(), &bad),
		Timeout:  durationOf("timeout", req.GetTimeout(), s.cfg.MaxTimeout, &bad),
		Wait:     parseWait(req.GetWait(), &bad),

		Traceparent: parseTraceparent(req.GetTraceparent()),
	}
	return sub, bad.err()
}

// traceparentBytes is the length of a W3C traceparent, of version 00.
const traceparentBytes = 55

// parseTraceparent drops what is no traceparent: a trace is not worth refusing anybody.
func parseTraceparent(s string) string {
	if len(s) != traceparentBytes {
		return ""
	}
	return s
}

// applied is the outcome of a transaction that is decided in this node's state,
// and hence final, if it is there for the caller.
func (s *Server) applied(ctx context.Context, id txn.TxID) (coordinator.Result, bool) {
	t, ok := s.seen(ctx, id)
	if !ok || !t.State.Decided() {
		return coordinator.Result{}, false
	}
	return coordinator.Result{Transaction: t, Delivered: t.State.Finished()}, true
}

// Begin implements the RPC.
func (s *transactions) Begin(ctx context.Context, req *decreev1.BeginRequest) (*decreev1.BeginResponse, error) {
	if req.GetTxid() == "" {
		id, err := newTxID(s.cfg.Machine.Cluster().Group)
		if err != nil {
			return nil, refuse(err, "")
		}
		req.Txid = id.String()
	}
	var bad invalidError
	id := parseTxID(req.GetTxid(), &bad)
	timeout := durationOf("timeout", req.GetTimeout(), s.cfg.MaxInteractiveTimeout, &bad)
	if err := bad.err(); err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	timeout = orDefault(timeout, defaultInteractiveTimeout)
	return route(ctx, s.Server, &errand[*decreev1.BeginResponse]{
		txid:   req.GetTxid(),
		budget: callBudget,
		local: func(ctx context.Context) (*decreev1.BeginResponse, error) {
			if err := s.recordable(coordinator.CallerOf(ctx).Owner); err != nil {
				return nil, err
			}
			t, err := s.cfg.Coordinator.Begin(ctx, id, timeout)
			if err != nil {
				return nil, err
			}
			return &decreev1.BeginResponse{Txid: t.ID.String(), Deadline: timestamppb.New(t.Deadline().Std())}, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.BeginResponse, error) {
			return leaderClient(conn).Begin(ctx, req)
		},
	})
}

// defaultInteractiveTimeout covers enlisting by a program; people and batch jobs
// ask for more.
const defaultInteractiveTimeout = time.Minute

// Enlist implements the RPC.
func (s *transactions) Enlist(ctx context.Context, req *decreev1.EnlistRequest) (*decreev1.EnlistResponse, error) {
	var bad invalidError
	id := parseTxID(req.GetTxid(), &bad)
	branch := parseEnlisted(req, &bad)
	if err := bad.err(); err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	return route(ctx, s.Server, &errand[*decreev1.EnlistResponse]{
		txid:   req.GetTxid(),
		budget: callBudget,
		local: func(ctx context.Context) (*decreev1.EnlistResponse, error) {
			t, err := s.cfg.Coordinator.Enlist(ctx, id, branch)
			if err != nil {
				return nil, err
			}
			return &decreev1.EnlistResponse{
				Branch:  uint32(t.Branch(branch.Participant)), //nolint:gosec // at most MaxBranches
				Cluster: s.cfg.Machine.ClusterID(),
				Epoch:   s.cfg.Machine.Cluster().Epoch,
			}, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.EnlistResponse, error) {
			return leaderClient(conn).Enlist(ctx, req)
		},
	})
}

// Commit implements the RPC.
func (s *transactions) Commit(ctx context.Context, req *decreev1.CommitRequest) (*decreev1.CommitResponse, error) {
	var bad invalidError
	id := parseTxID(req.GetTxid(), &bad)
	votes := parseVotes(req.GetVotes(), &bad)
	wait := parseWait(req.GetWait(), &bad)
	if err := bad.err(); err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	e := &errand[*decreev1.CommitResponse]{
		txid:   req.GetTxid(),
		budget: s.cfg.DefaultTimeout + callBudget,
		local: func(ctx context.Context) (*decreev1.CommitResponse, error) {
			if err := s.overseen(ctx, "commit", id, ""); err != nil {
				return nil, err
			}
			r, err := s.cfg.Coordinator.Commit(ctx, id, votes, wait)
			if err != nil {
				return nil, err
			}
			return &decreev1.CommitResponse{Result: resultMessage(r)}, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.CommitResponse, error) {
			return leaderClient(conn).Commit(ctx, req)
		},
	}
	e.settled = func() (*decreev1.CommitResponse, bool) {
		r, ok := s.applied(ctx, id)
		if !ok || (r.Decision() == txn.Abort && !e.ran) {
			return nil, false
		}
		return &decreev1.CommitResponse{Result: resultMessage(r)}, true
	}
	answer, err := route(ctx, s.Server, e)
	if err != nil && e.ran && reasonOf(err) == reasonAborted {
		// The abort may well be the outcome of an earlier attempt of this very call:
		// then it is an answer and no error.
		told, err := s.Inquire(ctx, &decreev1.InquireRequest{Txid: req.GetTxid()})
		if err != nil {
			return nil, err
		}
		return &decreev1.CommitResponse{Result: told.GetResult()}, nil
	}
	return answer, err
}

// Abort implements the RPC.
func (s *transactions) Abort(ctx context.Context, req *decreev1.AbortRequest) (*decreev1.AbortResponse, error) {
	var bad invalidError
	id := parseTxID(req.GetTxid(), &bad)
	wait := parseWait(req.GetWait(), &bad)
	if err := bad.err(); err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	return route(ctx, s.Server, &errand[*decreev1.AbortResponse]{
		txid:   req.GetTxid(),
		budget: callBudget,
		local: func(ctx context.Context) (*decreev1.AbortResponse, error) {
			why := clip(req.GetReason(), txn.MaxReasonDetail)
			if err := s.overseen(ctx, "abort", id, why); err != nil {
				return nil, err
			}
			r, err := s.cfg.Coordinator.Abort(ctx, id, why, wait)
			if err != nil {
				return nil, err
			}
			return &decreev1.AbortResponse{Result: resultMessage(r)}, nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.AbortResponse, error) {
			return leaderClient(conn).Abort(ctx, req)
		},
		settled: func() (*decreev1.AbortResponse, bool) {
			r, ok := s.applied(ctx, id)
			if !ok || r.Decision() != txn.Abort {
				return nil, false
			}
			return &decreev1.AbortResponse{Result: resultMessage(r)}, true
		},
	})
}

// Inquire implements the RPC.
func (s *transactions) Inquire(ctx context.Context, req *decreev1.InquireRequest) (*decreev1.InquireResponse, error) {
	id, err := txidOf(req.GetTxid())
	if err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	answer := func(r coordinator.Result) *decreev1.InquireResponse {
		return &decreev1.InquireResponse{Result: resultMessage(r)}
	}
	return route(ctx, s.Server, &errand[*decreev1.InquireResponse]{
		txid:   req.GetTxid(),
		budget: callBudget,
		local: func(ctx context.Context) (*decreev1.InquireResponse, error) {
			r, err := s.cfg.Coordinator.Inquire(ctx, id)
			if err != nil {
				return nil, err
			}
			return answer(r), nil
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.InquireResponse, error) {
			return leaderClient(conn).Inquire(ctx, req)
		},
		settled: func() (*decreev1.InquireResponse, bool) {
			r, ok := s.applied(ctx, id)
			if !ok {
				return nil, false
			}
			return answer(r), true
		},
	})
}

// getPatience bounds how long Get waits for the leader: without it, the node says
// what it knows itself.
const getPatience = time.Second

// Get implements the RPC. What is decided in this node's state is final; of
// anything else the leader knows more.
func (s *transactions) Get(ctx context.Context, req *decreev1.GetRequest) (*decreev1.GetResponse, error) {
	id, err := txidOf(req.GetTxid())
	if err != nil {
		return nil, refuse(err, req.GetTxid())
	}
	t, known := s.seen(ctx, id)
	if (!known || !t.State.Decided()) && hops(ctx) == 0 && !s.cfg.Coordinator.Leads() {
		if answer, err := s.askLeader(ctx, req); err == nil {
			return answer, nil
		}
		t, known = s.seen(ctx, id)
	}
	if !known {
		return nil, refuse(s.missing(id), req.GetTxid())
	}
	return &decreev1.GetResponse{Transaction: transactionMessage(t, s.cfg.Coordinator.Deliveries(id))}, nil
}

// missing tells a txid that never was from one that may have been forgotten.
func (s *Server) missing(id txn.TxID) error {
	if err := s.cfg.Machine.Cluster().CheckID(id); err != nil {
		return err
	}
	return txn.ErrUnknown
}

func (s *transactions) askLeader(ctx context.Context, req *decreev1.GetRequest) (*decreev1.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, getPatience)
	defer cancel()
	return try(ctx, s.Server, &errand[*decreev1.GetResponse]{
		local: func(context.Context) (*decreev1.GetResponse, error) {
			return nil, coordinator.ErrNotLeader // it has begun to lead: its own state answers
		},
		remote: func(ctx context.Context, conn *grpc.ClientConn) (*decreev1.GetResponse, error) {
			return leaderClient(conn).Get(ctx, req)
		},
	}, s.observer.view())
}

// Bounds of a page, as transactions.proto tells them.
const (
	defaultPage = 100
	maxPage     = 1000
)

// List implements the RPC, from this node's state.
func (s *transactions) List(ctx context.Context, req *decreev1.ListRequest) (*decreev1.ListResponse, error) {
	var bad invalidError
	q := fsm.Query{
		States:      parseStates(req.GetStates(), &bad),
		Participant: req.GetParticipant(),
		Damaged:     req.GetDamaged(),
		Before:      parseCursor(req.GetPageToken(), &bad),
		Limit:       int(min(orDefault(req.GetPageSize(), defaultPage), maxPage)),
	}
	if err := bad.err(); err != nil {
		return nil, refuse(err, "")
	}
	if caller := coordinator.CallerOf(ctx); !caller.All {
		q.Owner = caller.Owner
	}
	page, next, more := s.cfg.Machine.List(q)
	answer := &decreev1.ListResponse{}
	for _, t := range page {
		answer.Transactions = append(answer.Transactions, transactionMessage(t, s.cfg.Coordinator.Deliveries(t.ID)))
	}
	if more {
		answer.NextPageToken = next.String()
	}
	return answer, nil
}
