package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/decree-tx/decree/transport/client"
)

// The kinds of participants that a bench starts itself.
const (
	Trivial = "trivial" // keeps nothing, agrees at once
	KV      = "kv"      // decree's durable key-value store
)

// Bounds of a configuration: past them a figure would be the load generator's, or the
// run would not end within a working day.
const (
	maxClients      = 100_000
	maxRate         = 1_000_000
	maxBranches     = 64
	maxParticipants = 64
	maxPayload      = 1 << 20
	maxDuration     = time.Hour
	maxRounds       = 100
	maxNodes        = 5
	maxGroups       = 12
	maxStuck        = 100_000
)

// Config says what is measured. Defaults gives one that works.
type Config struct {
	// Binary is the decree binary that plays the nodes and the participants.
	Binary string
	// Dir keeps the processes' data and logs, in a new directory of every cluster; empty
	// is a temporary directory, which goes with the run.
	Dir string
	// Out gets a line a second, and what there is to say, for people.
	Out io.Writer
	// Version is that of the binary, for the report.
	Version string

	// Endpoints are those of a cluster that runs already, and Targets its participants
	// with the payload that each gets. Without Endpoints the bench starts Nodes nodes
	// and the participants itself.
	Endpoints []string
	Targets   []Target
	Nodes     int
	// Groups is how many clusters of so many nodes share out the transactions by their
	// txids, all with the same participants.
	Groups int
	// LogStore is the nodes' --log-store; empty is their default.
	LogStore string
	// TLS has the nodes and the bench speak TLS, with certificates made for the run, and
	// every caller known. Participants speak plain text as before.
	TLS bool
	// ServerArgs are further arguments of every node.
	ServerArgs []string
	// Participants are Trivial or KV, and ParticipantsCount how many are registered.
	// They live in ServiceProcesses processes at most.
	Participants      string
	ParticipantsCount int

	// Steps are the loads, one after the other.
	Steps []Step
	// InFlight bounds the transactions under way in an open loop; what is due past it
	// is shed, and counted.
	InFlight int
	// Connections is how many SDK clients the load shares.
	Connections int

	// Branches of a transaction, each at another participant while there are enough;
	// Payload bytes each.
	Branches, Payload int
	Wait              client.Wait
	// Abort and ReadOnly are the shares, from 0 to 1, of transactions in which one
	// branch votes no, and in which all have nothing to do.
	Abort, ReadOnly float64

	// Duration is measured, after Warmup, which is not.
	Duration, Warmup time.Duration
	// Rounds is how often each step is measured; the report has the medians.
	Rounds int
	// AgainstRaft measures bare Raft before each round: three further processes that
	// propose entries of EntryBytes, as many at once as there are clients.
	AgainstRaft bool
	EntryBytes  int // 0: what a transaction takes in the log, which is found out before

	// KillLeaderAt and TransferLeaderAt are moments, counted from the warm-up's end, at
	// which the leader is killed or told to hand over; 0 is never.
	KillLeaderAt, TransferLeaderAt time.Duration
	// Stuck is how many transactions wait, in a second measurement, at a participant
	// that never answers and at one that answers late.
	Stuck int

	// Profile is the directory for a CPU profile of each process; empty for none.
	Profile string
}

// Step is one load: Clients in a closed loop, each with one transaction at a time, or
// Rate transactions a second in an open one, whether the earlier ones are answered or
// not.
type Step struct {
	Clients int     `json:"clients,omitempty"`
	Rate    float64 `json:"rate,omitempty"`
}

func (s Step) String() string {
	if s.open() {
		return fmt.Sprintf("%s/s", Thousands(s.Rate))
	}
	if s.Clients == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%s clients", Thousands(float64(s.Clients)))
}

func (s Step) open() bool { return s.Rate > 0 }

// Target is a registered participant, and the payload of every branch there. In it,
// {n} stands for the transaction's number, so that transactions need not meet.
type Target struct{ Participant, Payload string }

// Defaults is what `decree bench` measures when nothing is said.
func Defaults() Config {
	return Config{
		Nodes: 3, Groups: 1, Participants: Trivial, ParticipantsCount: 2,
		Steps: []Step{{Clients: 64}}, InFlight: 10_000, Connections: 1,
		Branches: 2, Payload: 100, Wait: client.WaitDecision,
		Duration: 10 * time.Second, Warmup: 2 * time.Second, Rounds: 1,
	}
}

// Validate reports every problem at once, each under its flag's name.
func (c Config) Validate() error {
	var p problems
	if !slices.Contains([]string{Trivial, KV}, c.Participants) {
		p.add("participants", "%q: want trivial or kv", c.Participants)
	}
	p.count("nodes", c.Nodes, 1, maxNodes)
	p.count("groups", c.Groups, 1, maxGroups)
	p.count("participants-count", c.ParticipantsCount, 1, maxParticipants)
	p.count("in-flight", c.InFlight, 1, maxClients)
	p.count("connections", c.Connections, 1, maxClients)
	p.count("branches", c.Branches, 1, maxBranches)
	p.count("payload", c.Payload, 1, maxPayload)
	p.count("entry-bytes", c.EntryBytes, 0, maxPayload)
	p.count("rounds", c.Rounds, 1, maxRounds)
	p.count("stuck", c.Stuck, 0, maxStuck)
	p.time("duration", c.Duration, time.Millisecond, maxDuration)
	p.time("warmup", c.Warmup, 0, maxDuration)
	c.validateSteps(&p)
	c.validateMix(&p)
	c.validateKind(&p)
	return errors.Join(p...)
}

func (c Config) validateSteps(p *problems) {
	if len(c.Steps) == 0 {
		p.add("ramp", "has no step")
	}
	for _, s := range c.Steps {
		if s.open() && s.Rate > maxRate {
			p.add("rate", "%g: want more than 0, at most %d", s.Rate, maxRate)
		}
		if !s.open() {
			p.count("clients", s.Clients, 1, maxClients)
		}
	}
}

func (c Config) validateMix(p *problems) {
	for name, share := range map[string]float64{"abort": c.Abort, "read-only": c.ReadOnly} {
		if share < 0 || share > 1 {
			p.add(name, "%g: want 0%% to 100%%", share)
		}
	}
	if c.Abort+c.ReadOnly > 1 {
		p.add("abort", "and --read-only are more than all transactions")
	}
	if len(c.Targets) > 0 && c.Abort+c.ReadOnly > 0 {
		p.add("abort", "and --read-only need participants of the bench's own: others don't know how to vote by the payload")
	}
}

// validateKind refuses what cannot be measured together.
func (c Config) validateKind(p *problems) {
	if (len(c.Endpoints) > 0) != (len(c.Targets) > 0) {
		p.add("endpoints", "and --participant go together: the cluster, and what to touch in it")
	}
	special := 0
	for _, asked := range []bool{c.KillLeaderAt > 0, c.TransferLeaderAt > 0, c.Stuck > 0} {
		if asked {
			special++
		}
	}
	if special > 1 {
		p.add("kill-leader-at", ", --transfer-leader-at and --stuck exclude one another")
	}
	if special == 1 && len(c.Endpoints) > 0 {
		p.add("endpoints", "excludes --kill-leader-at, --transfer-leader-at and --stuck: nobody's cluster is broken but the bench's own")
	}
	if special == 1 && (c.AgainstRaft || len(c.Steps) > 1) {
		p.add("kill-leader-at", ", --transfer-leader-at and --stuck go without --against-raft and --ramp")
	}
	if (c.KillLeaderAt > 0 || c.TransferLeaderAt > 0) && c.Nodes < 3 {
		p.add("kill-leader-at", "and --transfer-leader-at need three nodes")
	}
	for name, at := range map[string]time.Duration{"kill-leader-at": c.KillLeaderAt, "transfer-leader-at": c.TransferLeaderAt} {
		if at < 0 || at >= c.Duration && at > 0 {
			p.add(name, "%s: want a moment before --duration, %s", at, c.Duration)
		}
	}
	if c.Groups > 1 && (c.AgainstRaft || special > 0 || len(c.Endpoints) > 0) {
		p.add("groups", "goes without --against-raft, --kill-leader-at, --transfer-leader-at, --stuck and --endpoints: those are about one cluster")
	}
	if c.AgainstRaft && (len(c.Endpoints) > 0 || slices.ContainsFunc(c.Steps, Step.open)) {
		p.add("against-raft", "needs a cluster of the bench's own, and clients, not a rate")
	}
}

// serverArgs are the arguments of a node beside those that it needs.
func (c Config) serverArgs() []string {
	if c.LogStore == "" {
		return c.ServerArgs
	}
	return append([]string{"--log-store", c.LogStore}, c.ServerArgs...)
}

// problems collects what is wrong.
type problems []error

func (p *problems) add(name, format string, args ...any) {
	*p = append(*p, fmt.Errorf("--%s %s", name, fmt.Sprintf(format, args...)))
}

func (p *problems) count(name string, n, least, most int) {
	if n < least || n > most {
		p.add(name, "%d: want %d to %d", n, least, most)
	}
}

func (p *problems) time(name string, d, least, most time.Duration) {
	if d < least || d > most {
		p.add(name, "%s: want %s to %s", d, least, most)
	}
}
