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
	maxRate         = 10_000_000
	maxBranches     = 64
	maxParticipants = 64
	maxPayload      = 1 << 20
	maxDuration     = time.Hour
	maxRounds       = 100
)

// Config says what is measured. Defaults gives one that works.
type Config struct {
	// Binary is the decree binary that plays the nodes and the participants.
	Binary string
	// Dir keeps the processes' data and logs; empty is a temporary directory, which
	// goes with the run.
	Dir string
	// Out gets a line a second, and what there is to say, for people.
	Out io.Writer
	// Version is that of the binary, for the report.
	Version string

	// Participants are Trivial or KV, and ParticipantsCount how many are registered.
	// They live in ServiceProcesses processes at most.
	Participants      string
	ParticipantsCount int
	// ServerArgs are further arguments of every node.
	ServerArgs []string

	// Clients is how many clients there are in the closed loop, each with one
	// transaction at a time.
	Clients int
	// Connections is how many SDK clients they share.
	Connections int

	// Branches of a transaction, each at another participant while there are enough;
	// Payload bytes each.
	Branches, Payload int
	Wait              client.Wait

	// Duration is measured, after Warmup, which is not.
	Duration, Warmup time.Duration

	// Profile is the directory for a CPU profile of each process; empty for none.
	Profile string
}

// Defaults is what `decree bench` measures when nothing is said.
func Defaults() Config {
	return Config{
		Participants: Trivial, ParticipantsCount: 2, Clients: 64, Connections: 1,
		Branches: 2, Payload: 100, Wait: client.WaitDecision,
		Duration: 10 * time.Second, Warmup: 2 * time.Second,
	}
}

// Validate reports every problem at once, each under its flag's name.
func (c Config) Validate() error {
	var p problems
	if !slices.Contains([]string{Trivial, KV}, c.Participants) {
		p.add("participants", "%q: want trivial or kv", c.Participants)
	}
	p.count("participants-count", c.ParticipantsCount, 1, maxParticipants)
	p.count("clients", c.Clients, 1, maxClients)
	p.count("connections", c.Connections, 1, maxClients)
	p.count("branches", c.Branches, 1, maxBranches)
	p.count("payload", c.Payload, 1, maxPayload)
	p.time("duration", c.Duration, time.Millisecond, maxDuration)
	p.time("warmup", c.Warmup, 0, maxDuration)
	return errors.Join(p...)
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
