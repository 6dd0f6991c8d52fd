package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Defaults of [Config]. Half a second fails over in about one second and leaves a
// loaded disk or scheduler room before it looks dead. The lease is as long: what a
// leader without a majority does in it is neither applied nor told, and a shorter one
// deposes leaders whose followers are only busy.
const (
	DefaultHeartbeatTimeout = 500 * time.Millisecond
	DefaultElectionTimeout  = 500 * time.Millisecond
	DefaultLeaderLease      = 500 * time.Millisecond

	// DefaultSnapshotThreshold and DefaultSnapshotInterval bound what a restart
	// replays: NewRaft reads every entry after the snapshot.
	DefaultSnapshotThreshold = 8192
	DefaultSnapshotInterval  = 30 * time.Second
	// DefaultSnapshotBytes bounds the same where entries are large: under load an
	// entry holds many commands, and the log grows by some ten MiB a second.
	DefaultSnapshotBytes = 128 << 20
	// DefaultTrailingLogs and DefaultTrailingBytes let a node that was away for some
	// seconds catch up from the log; one that was away longer gets the snapshot.
	DefaultTrailingLogs  = 4096
	DefaultTrailingBytes = 64 << 20

	// DefaultLeadGrace is many times what it takes to see a context end, and short
	// beside the patience of a client.
	DefaultLeadGrace = 10 * time.Second
	// DefaultStoreTimeout is what no healthy disk needs for one write.
	DefaultStoreTimeout = 10 * time.Second
	// DefaultRPCTimeout bounds one message to a peer. A peer whose packets vanish
	// is tried again that late, so it also bounds how long a healed link stays
	// unused.
	DefaultRPCTimeout = 5 * time.Second
)

// maxIDLength keeps node ids readable in logs and in file names.
const maxIDLength = 64

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Peer is one node as the others know it.
type Peer struct {
	ID          string // unique, for all time: see [ErrEmptyDisk]
	RaftAddress string // host:port that the others dial
}

// Config describes one node. ID, Bind, FSM and one of Dir and Storage are required;
// every other zero value means the default.
type Config struct {
	ID         string   // this node's id: letters, digits, ".", "_", "-"; at most 64
	Bind       string   // host:port to listen on for the other nodes
	Advertise  string   // host:port that the others dial; default: its address in Peers, else the bound address
	APIAddress string   // where this node serves clients; told to its peers so that a follower can forward
	Dir        string   // data directory; one process at a time
	LogStore   LogStore // what holds the log in Dir; default BoltDB

	// Peers are the first members, this node among them, the same list on every
	// node. It is read once, on a node's first start. A node without Peers waits
	// until a leader admits it (AddNode). Where this node is the only one, its
	// address may be empty.
	Peers []Peer

	// Level is how much of what the log may hold this node's state machine reads, told to
	// the other nodes; 0 where there is only one level. LevelInUse, where set, is how much
	// of it the cluster uses: a node that reads less is not admitted.
	Level      uint32
	LevelInUse func() uint32

	FSM    raft.FSM     // best a raft.BatchingFSM, which must answer configuration entries too
	Logger hclog.Logger // default: none

	HeartbeatTimeout time.Duration // a follower that hears nothing for so long asks for an election
	ElectionTimeout  time.Duration // at least HeartbeatTimeout
	LeaderLease      time.Duration // a leader that reaches no majority for so long steps down; at most HeartbeatTimeout

	SnapshotThreshold uint64        // entries between snapshots
	SnapshotInterval  time.Duration // how often the threshold is looked at
	SnapshotBytes     int64         // bytes of entries between snapshots, whatever the threshold and interval
	TrailingLogs      uint64        // entries that stay behind a snapshot, at most
	TrailingBytes     int64         // bytes that do, at most, though never less than 64 entries

	LeadGrace    time.Duration // bound for a term's work to end once its context has; past it Exit
	StoreTimeout time.Duration // bound for one write of the log; past it Exit
	RPCTimeout   time.Duration // bound for one message to a peer

	// DiskHeadroom is the free bytes below which the disk of Dir counts as low
	// ([Disk]), and DiskReserve what the log can grow by even where somebody else fills
	// the disk: the log's file has so many blocks more than its size. A Storage that is
	// not [Bounded] has neither.
	DiskHeadroom int64
	DiskReserve  int64

	// OnLogWrite, where set, hears how long each append to the log took, the fsync
	// included: for monitoring. It must not block.
	OnLogWrite func(time.Duration)

	// Network is how nodes reach each other; nil is TCP.
	Network Network
	// Storage is where the node keeps what outlives it; nil is files in Dir.
	Storage Storage
	// Exit ends the process. It is called at most once, when going on could break
	// a promise: the disk failed, work outlived its term, the node was removed
	// ([ErrRemoved]). The default prints the error and exits with status 1. Where
	// it returns, as in tests, the node is cut off and only Close is of use.
	Exit func(error)
}

func (c Config) withDefaults() Config {
	c.HeartbeatTimeout = orDefault(c.HeartbeatTimeout, DefaultHeartbeatTimeout)
	c.ElectionTimeout = orDefault(c.ElectionTimeout, max(DefaultElectionTimeout, c.HeartbeatTimeout))
	c.LeaderLease = orDefault(c.LeaderLease, min(DefaultLeaderLease, c.HeartbeatTimeout))
	c.SnapshotThreshold = orDefault(c.SnapshotThreshold, DefaultSnapshotThreshold)
	c.SnapshotInterval = orDefault(c.SnapshotInterval, DefaultSnapshotInterval)
	c.SnapshotBytes = orDefault(c.SnapshotBytes, DefaultSnapshotBytes)
	c.TrailingLogs = orDefault(c.TrailingLogs, DefaultTrailingLogs)
	c.TrailingBytes = orDefault(c.TrailingBytes, DefaultTrailingBytes)
	c.LeadGrace = orDefault(c.LeadGrace, DefaultLeadGrace)
	c.StoreTimeout = orDefault(c.StoreTimeout, DefaultStoreTimeout)
	c.RPCTimeout = orDefault(c.RPCTimeout, DefaultRPCTimeout)
	c.DiskHeadroom = orDefault(c.DiskHeadroom, DefaultDiskHeadroom)
	c.DiskReserve = orDefault(c.DiskReserve, DefaultDiskReserve)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Network == nil {
		c.Network = tcp{}
	}
	c.LogStore = orDefault(c.LogStore, BoltDB)
	if c.Storage == nil && c.Dir != "" {
		c.Storage = files{dir: c.Dir, log: c.LogStore}
	}
	if c.Exit == nil {
		c.Exit = func(err error) {
			fmt.Fprintln(os.Stderr, "decree: "+err.Error())
			os.Exit(1)
		}
	}
	if c.OnLogWrite == nil {
		c.OnLogWrite = func(time.Duration) {}
	}
	c.Peers = slices.Clone(c.Peers)
	for i, p := range c.Peers {
		if p.ID == c.ID && p.RaftAddress == "" {
			c.Peers[i].RaftAddress = c.Advertise
		}
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

// Validate returns every problem of the configuration, joined; nil if it can be
// opened. Zero values that have a default are no problem.
func (c Config) Validate() error {
	c = c.withDefaults()
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }

	if c.ID == "" {
		add("the node id is missing")
	} else if err := checkID(c.ID); err != nil {
		problems = append(problems, err)
	}
	if c.Storage == nil {
		add("the data directory is missing")
	}
	if c.LogStore != BoltDB && c.LogStore != WAL {
		add("log store %q: want %s or %s", c.LogStore, BoltDB, WAL)
	}
	if c.FSM == nil {
		add("the state machine is missing")
	}
	if _, _, err := net.SplitHostPort(c.Bind); err != nil {
		add("bind address %q: want host:port", c.Bind)
	}
	if c.Advertise != "" {
		if err := checkDialable(c.Advertise); err != nil {
			add("advertised address: %w", err)
		}
	}
	if c.DiskHeadroom < 0 || c.DiskReserve < 0 {
		add("disk headroom %d and reserve %d: not below zero", c.DiskHeadroom, c.DiskReserve)
	}
	if c.SnapshotBytes < 0 || c.TrailingBytes < 0 {
		add("snapshot bytes %d and trailing bytes %d: not below zero", c.SnapshotBytes, c.TrailingBytes)
	}
	problems = append(problems, c.checkPeers()...)
	problems = append(problems, c.checkTimes()...)
	return errors.Join(problems...)
}

func (c Config) checkPeers() []error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if len(c.Peers) == 0 {
		return nil
	}
	ids, addresses := map[string]bool{}, map[string]bool{}
	for _, p := range c.Peers {
		if err := checkID(p.ID); err != nil {
			add("peers: %w", err)
		}
		if ids[p.ID] {
			add("peers: %q is there twice", p.ID)
		}
		ids[p.ID] = true
		if p.RaftAddress == "" && p.ID == c.ID && len(c.Peers) == 1 {
			continue // alone: nobody dials it
		}
		if err := checkDialable(p.RaftAddress); err != nil {
			add("peer %s: %w", p.ID, err)
		}
		if addresses[p.RaftAddress] {
			add("peers: the address %q is there twice", p.RaftAddress)
		}
		addresses[p.RaftAddress] = true
		if p.ID == c.ID && c.Advertise != "" && c.Advertise != p.RaftAddress {
			add("this node advertises %q but is %q among the peers", c.Advertise, p.RaftAddress)
		}
	}
	if !ids[c.ID] {
		add("peers: this node, %q, is not among them", c.ID)
	}
	return problems
}

func (c Config) checkTimes() []error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	// Below this the library refuses, and scheduling jitter would depose leaders.
	const least = 10 * time.Millisecond
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"heartbeat timeout", c.HeartbeatTimeout},
		{"election timeout", c.ElectionTimeout},
		{"leader lease", c.LeaderLease},
		{"snapshot interval", c.SnapshotInterval},
		{"lead grace", c.LeadGrace},
		{"store timeout", c.StoreTimeout},
		{"RPC timeout", c.RPCTimeout},
	} {
		if d.value < least {
			add("%s %s: at least %s", d.name, d.value, least)
		}
	}
	if c.ElectionTimeout < c.HeartbeatTimeout {
		add("election timeout %s: at least the heartbeat timeout, %s", c.ElectionTimeout, c.HeartbeatTimeout)
	}
	if c.LeaderLease > c.HeartbeatTimeout {
		add("leader lease %s: at most the heartbeat timeout, %s", c.LeaderLease, c.HeartbeatTimeout)
	}
	return problems
}

func checkID(id string) error {
	if len(id) > maxIDLength {
		return fmt.Errorf("node id %q...: at most %d bytes", id[:maxIDLength], maxIDLength)
	}
	if !validID.MatchString(id) {
		return fmt.Errorf("node id %q: want letters, digits, '.', '_' and '-', a letter or digit first", id)
	}
	return nil
}

// checkDialable refuses what another machine could not dial.
func checkDialable(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: want host:port", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("address %q: the others can not dial that host", address)
	}
	if port == "" || strings.Trim(port, "0") == "" {
		return fmt.Errorf("address %q: the others can not dial that port", address)
	}
	return nil
}

// self is this node among the configured peers.
func (c Config) self() (Peer, bool) {
	i := slices.IndexFunc(c.Peers, func(p Peer) bool { return p.ID == c.ID })
	if i < 0 {
		return Peer{}, false
	}
	return c.Peers[i], true
}
