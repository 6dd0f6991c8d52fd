package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/group"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
)

// Coordinator is what the server needs of *coordinator.Coordinator; that one's
// documentation says what each method promises.
type Coordinator interface {
	Submit(ctx context.Context, s coordinator.Submission) (coordinator.Result, error)
	Start(s coordinator.Submission, f *coordinator.Following, to coordinator.Listener) error
	Leave(f *coordinator.Following, cause error)
	Begin(ctx context.Context, id txn.TxID, timeout time.Duration) (*txn.Transaction, error)
	Enlist(ctx context.Context, id txn.TxID, b txn.Branch) (*txn.Transaction, error)
	Commit(ctx context.Context, id txn.TxID, votes []txn.BranchVote, w coordinator.Wait) (coordinator.Result, error)
	Abort(ctx context.Context, id txn.TxID, reason string, w coordinator.Wait) (coordinator.Result, error)
	Inquire(ctx context.Context, id txn.TxID) (coordinator.Result, error)
	Check(ctx context.Context, participant string) (coordinator.Inspection, error)
	Examine(ctx context.Context, id txn.TxID, branch int) (*txn.Transaction, coordinator.Evidence, error)
	Deliveries(id txn.TxID) []coordinator.Delivery
	Timelines(id txn.TxID) []coordinator.Timeline
	Loads() []coordinator.Load
	Leads() bool

	Unresolved(ctx context.Context) (list []coordinator.Unresolved, away map[string]error, more bool, err error)
	Evidence(ctx context.Context, id txn.TxID) (coordinator.Unresolved, error)
	Arbitrate(ctx context.Context, commands []txn.Command) ([]*txn.Transaction, error)
}

// Node is what the server needs of *cluster.Node.
type Node interface {
	Leader() (cluster.Peer, bool)
	LeaderChanges() (<-chan struct{}, func())
	APIAddress(ctx context.Context, raftAddress string) (string, error)
	Status() cluster.Status
	AddNode(ctx context.Context, p cluster.Peer) error
	RemoveNode(ctx context.Context, id string) error
	TransferLeadership(ctx context.Context, id string) error
	Barrier(ctx context.Context) error
}

// Registrar changes the registry of participants, on the leader, and puts what operators
// do on the record: of the registry's changes it does so by itself. The changes are
// idempotent. The errors wrap coordinator.ErrNotLeader or
// coordinator.ErrOutcomeUnknown, or are the state machine's refusals, such as
// fsm.ErrUnknownParticipant, fsm.ErrParticipantInUse and fsm.ErrGroupStays, or are
// participants.ErrUnfit.
type Registrar interface {
	PutParticipant(ctx context.Context, by fsm.Operator, r participants.Registration) (participants.Registration, error)
	DeleteParticipant(ctx context.Context, by fsm.Operator, name string) error
	Resolve(ctx context.Context, by fsm.Operator, word txn.Resolve) (*txn.Transaction, error)
	SetGroup(ctx context.Context, by fsm.Operator, g group.Group) error
	Note(ctx context.Context, by fsm.Operator, action, target, detail string) error
}

// Config is what a Server is made of. The first group must be set; the zero value
// of any other field means its default.
type Config struct {
	Coordinator Coordinator
	Node        Node
	Machine     *fsm.Machine
	Registrar   Registrar
	Drivers     participants.Drivers // to check registrations before they are proposed

	Logger  hclog.Logger
	Version string // of the binary, shown by Cluster.Status
	// Pulse tells what this node decided in the last seconds; the default knows nothing.
	Pulse func() Pulse
	// Page, where set, serves "GET /" and what is below /ui/: the page for people, which
	// reads the API as any client does.
	Page http.Handler

	// Security of the API; the zero value is plain text for everybody.
	Security Security

	// DefaultTimeout, MaxTimeout and MaxInteractiveTimeout are the coordinator's:
	// 15s, 1h and 24h.
	DefaultTimeout        time.Duration
	MaxTimeout            time.Duration
	MaxInteractiveTimeout time.Duration

	// MaxRequestBytes bounds one request, 4 MiB: room for the coordinator's own
	// bound on payloads, 1 MiB, also where JSON carries them as base64, so that it is
	// that bound which answers.
	MaxRequestBytes int
	// MaxConnections bounds the open connections to each of the two listeners,
	// 4096. Further ones wait in the kernel's queue.
	MaxConnections int
	// MaxStreams bounds the calls under way on one gRPC connection, 1024.
	MaxStreams int
	// MaxPerStream bounds the submissions under way in one SubmitMany stream, 32768;
	// what is beyond is read when others were answered. Large enough for those
	// that wait for a participant which does not answer, of which the coordinator takes
	// 16384, beside as many others.
	MaxPerStream int
	// MaxCalls bounds the mutating calls under way at this node, 32768 for the same
	// reason, whether they run or wait for a leader. Each costs its request, and a
	// goroutine unless it is a submission of a stream.
	MaxCalls int
	// MaxWatches bounds the Watch streams of this node, 1024.
	MaxWatches int
}

func (c Config) withDefaults() Config {
	c.DefaultTimeout = orDefault(c.DefaultTimeout, 15*time.Second)
	c.MaxTimeout = orDefault(c.MaxTimeout, time.Hour)
	c.MaxInteractiveTimeout = orDefault(c.MaxInteractiveTimeout, 24*time.Hour)
	c.MaxRequestBytes = orDefault(c.MaxRequestBytes, 4<<20)
	c.MaxConnections = orDefault(c.MaxConnections, 4096)
	c.MaxStreams = orDefault(c.MaxStreams, 1024)
	c.MaxPerStream = orDefault(c.MaxPerStream, 32768)
	c.MaxCalls = orDefault(c.MaxCalls, 32768)
	c.MaxWatches = orDefault(c.MaxWatches, 1024)
	if c.Pulse == nil {
		c.Pulse = func() Pulse { return Pulse{} }
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct {
		name    string
		missing bool
	}{
		{"Coordinator", c.Coordinator == nil},
		{"Node", c.Node == nil},
		{"Machine", c.Machine == nil},
		{"Registrar", c.Registrar == nil},
	} {
		if f.missing {
			errs = append(errs, fmt.Errorf("transport: %s is not set", f.name))
		}
	}
	c = c.withDefaults()
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"DefaultTimeout", int64(c.DefaultTimeout)},
		{"MaxTimeout", int64(c.MaxTimeout)},
		{"MaxInteractiveTimeout", int64(c.MaxInteractiveTimeout)},
		{"MaxRequestBytes", int64(c.MaxRequestBytes)},
		{"MaxConnections", int64(c.MaxConnections)},
		{"MaxStreams", int64(c.MaxStreams)},
		{"MaxPerStream", int64(c.MaxPerStream)},
		{"MaxCalls", int64(c.MaxCalls)},
		{"MaxWatches", int64(c.MaxWatches)},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("transport: %s is negative", f.name))
		}
	}
	return errors.Join(errs...)
}
