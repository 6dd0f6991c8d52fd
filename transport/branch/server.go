package branch

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/bbolt"
	"google.golang.org/grpc"

	"github.com/decree-tx/decree/transport/api/decree/participant/callmany"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

// Server is a service's end of decree's participant protocol. It may be called
// from many goroutines at once. [Server.Serve] runs it by itself; a gRPC server
// that has other services too registers it with
// participantv1.RegisterParticipantServer, and heeds what Serve says of interceptors.
type Server struct {
	participantv1.UnimplementedParticipantServer
	cfg    Config
	engine engine
}

// engine runs the service and keeps its books. Errors of commit and abort that
// are a *Heuristic are answers; all others mean "not known".
type engine interface {
	prepare(context.Context, message) (Vote, error)
	commit(context.Context, message) error
	abort(context.Context, message) error
	// open lists the branches that wait for their decision, oldest first.
	open(ctx context.Context, cluster string) ([]Branch, error)
	// look reads what the books say of a branch.
	look(context.Context, message) (Record, error)
	// broken is closed when the books can no longer be kept until the process is
	// started anew, and failure then says why.
	broken() <-chan struct{}
	failure() error
}

// NewLocal makes the server of a service that keeps its data in db. The caller
// opened db and closes it after the server has stopped. A file has one server.
func NewLocal(db *bbolt.DB, service Local, c Config) (*Server, error) {
	return newServer(db, c, func(l *ledger) engine { return &local{ledger: l, service: service} })
}

// NewForeign makes the server of a service whose effects lie outside db, which
// then holds the server's books alone. The caller opened db and closes it after
// the server has stopped. A file has one server.
func NewForeign(db *bbolt.DB, service Foreign, c Config) (*Server, error) {
	return newServer(db, c, func(l *ledger) engine {
		return &foreign{ledger: l, service: service, turns: turns{taken: map[string]chan struct{}{}}}
	})
}

func newServer(db *bbolt.DB, c Config, over func(*ledger) engine) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	l, err := openLedger(db, c.MaxOpen)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: c, engine: over(l)}, nil
}

// Prepare implements participantv1.ParticipantServer.
func (s *Server) Prepare(ctx context.Context, r *participantv1.PrepareRequest) (*participantv1.PrepareResponse, error) {
	m, err := parseMessage(r.GetBranch())
	if n := len(r.GetDigest()); n != digestSize {
		err = errors.Join(err, fmt.Errorf("digest: %d bytes, want %d", n, digestSize))
	}
	if n := len(r.GetPayload()); n > s.cfg.MaxPayload {
		err = errors.Join(err, fmt.Errorf("payload: %d bytes, at most %d", n, s.cfg.MaxPayload))
	}
	if err != nil {
		return nil, invalid(err)
	}
	m.digest, m.branch.Payload = r.GetDigest(), r.GetPayload()
	vote, err := s.engine.prepare(withSpan(ctx, r.GetBranch().GetTraceparent()), m)
	if err != nil {
		s.report("prepare", m, err)
		return nil, statusError(err)
	}
	switch vote.kind {
	case voteYes:
		return &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_COMMIT}, nil
	case voteReadOnly:
		return &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_READ_ONLY}, nil
	default:
		return &participantv1.PrepareResponse{Vote: participantv1.Vote_VOTE_ABORT, Reason: vote.reason}, nil
	}
}

// Commit implements participantv1.ParticipantServer.
func (s *Server) Commit(ctx context.Context, r *participantv1.CommitRequest) (*participantv1.CommitResponse, error) {
	receipt, detail, err := s.end(ctx, "commit", r.GetBranch(), s.engine.commit)
	if err != nil {
		return nil, err
	}
	return &participantv1.CommitResponse{Receipt: receipt, Detail: detail}, nil
}

// Abort implements participantv1.ParticipantServer.
func (s *Server) Abort(ctx context.Context, r *participantv1.AbortRequest) (*participantv1.AbortResponse, error) {
	receipt, detail, err := s.end(ctx, "abort", r.GetBranch(), s.engine.abort)
	if err != nil {
		return nil, err
	}
	return &participantv1.AbortResponse{Receipt: receipt, Detail: detail}, nil
}

// CallMany implements participantv1.ParticipantServer: it answers each call of the
// stream as the methods above do.
func (s *Server) CallMany(stream callmany.Stream) error { return callmany.Serve(stream, s) }

func (s *Server) end(ctx context.Context, call string, w *participantv1.Branch, end func(context.Context, message) error) (participantv1.Receipt, string, error) {
	m, err := parseMessage(w)
	if err != nil {
		return 0, "", invalid(err)
	}
	var h *Heuristic
	switch err := end(withSpan(ctx, w.GetTraceparent()), m); {
	case err == nil:
		return participantv1.Receipt_RECEIPT_DONE, "", nil
	case errors.As(err, &h):
		s.log(m).Error("damage", "call", call, "fate", h.fate.String(), "evidence", h.detail)
		return h.receipt(), h.detail, nil
	default:
		s.report(call, m, err)
		return 0, "", statusError(err)
	}
}

func (h *Heuristic) receipt() participantv1.Receipt {
	switch h.fate {
	case stateCommitted:
		return participantv1.Receipt_RECEIPT_HEURISTIC_COMMIT
	case stateAborted:
		return participantv1.Receipt_RECEIPT_HEURISTIC_ABORT
	default:
		return participantv1.Receipt_RECEIPT_HEURISTIC_HAZARD
	}
}

// report logs what the service's author should see; a caller that has gone or a
// leader that was replaced is everyday.
func (s *Server) report(call string, m message, err error) {
	if errors.Is(err, errStaleEpoch) || errors.Is(err, context.Canceled) {
		return
	}
	s.log(m).Warn("a call failed", "call", call, "error", err)
}

func (s *Server) log(m message) hclog.Logger {
	return s.cfg.Log.With("cluster", m.branch.Cluster, "txid", m.branch.TxID, "branch", m.branch.Number, "epoch", m.epoch)
}

// recoverPage is how many branches one message of a Recover stream carries: some
// 100 KiB, far below what gRPC clients accept.
const recoverPage = 1000

// Recover implements participantv1.ParticipantServer: it lists the branches that
// wait for their decision, and those whose Prepare may have run.
func (s *Server) Recover(r *participantv1.RecoverRequest, out grpc.ServerStreamingServer[participantv1.RecoverResponse]) error {
	if err := checkCluster(r.GetCluster()); err != nil {
		return invalid(err)
	}
	open, err := s.engine.open(out.Context(), r.GetCluster())
	if err != nil {
		return statusError(err)
	}
	for len(open) > 0 {
		n := min(recoverPage, len(open))
		page := make([]*participantv1.Branch, n)
		for i, b := range open[:n] {
			page[i] = &participantv1.Branch{Cluster: b.Cluster, Txid: b.TxID, Number: uint32(b.Number)} //nolint:gosec // from 1 to 256
		}
		if err := out.Send(&participantv1.RecoverResponse{Branches: page}); err != nil {
			return err
		}
		open = open[n:]
	}
	return nil
}

// Status implements participantv1.ParticipantServer, from the books alone. What
// was forgotten, left nothing or cannot be known is answered as no record.
func (s *Server) Status(ctx context.Context, r *participantv1.StatusRequest) (*participantv1.StatusResponse, error) {
	m, err := parseMessage(r.GetBranch())
	if err != nil {
		return nil, invalid(err)
	}
	known, err := s.engine.look(ctx, m)
	if err != nil {
		return nil, statusError(err)
	}
	answer := &participantv1.StatusResponse{}
	switch known.State {
	case stateIntent, statePrepared:
		answer.Status = participantv1.BranchStatus_BRANCH_STATUS_PREPARED
	case stateCommitted:
		answer.Status = participantv1.BranchStatus_BRANCH_STATUS_COMMITTED
	case stateAborted:
		answer.Status = participantv1.BranchStatus_BRANCH_STATUS_ABORTED
	}
	return answer, nil
}
