// Package config gathers what `decree server` is told: by flags, before DECREE_*
// variables, before a YAML file, before the defaults.
//
// It owns the names of the settings and the rules between them, and reports all
// mistakes of all sources at once. It refuses to guess: an unknown name is a
// mistake wherever it stands.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cmd/internal/operator"
	"github.com/decree-tx/decree/coordinator/node"
	"github.com/decree-tx/decree/fsm"
)

// Server is the configuration of one coordinator node. A setting's name is its
// flag (--grpc-addr), its variable (DECREE_GRPC_ADDR) and its YAML key
// (grpc_addr).
type Server struct {
	// NodeID names the node in the cluster, for good: letters, digits, '.', '_'
	// and '-', at most 64, a letter or digit first.
	NodeID string
	// DataDir holds the node's log and snapshots. It belongs to one node for ever.
	DataDir string
	// LogStore holds the log in DataDir: boltdb, or wal. One that boltdb held is moved
	// when the node starts with wal, and there is no way back.
	LogStore string

	// RaftAddr is where the node listens to its peers; RaftAdvertise is what they
	// dial, by default the node's address in Peers, else RaftAddr.
	RaftAddr      string
	RaftAdvertise string
	// GRPCAddr serves clients and forwarding followers; GRPCAdvertise is what
	// followers dial, by default GRPCAddr.
	GRPCAddr      string
	GRPCAdvertise string
	// HTTPAddr serves JSON over HTTP. Empty means not at all.
	HTTPAddr string
	// OperatorAddr serves metrics, health, profiles (net/http/pprof) and the levels of
	// the log. Empty means not at all. It is loopback's unless OperatorPublic is set: it
	// asks nobody who he is, and profiles show what is in memory.
	OperatorAddr   string
	OperatorPublic bool

	// TLSCert, TLSKey and TLSCA are PEM files: the node's certificate, which names it
	// decree:///node/<name>, its key, and the authorities that everybody's certificates
	// are verified against. With them all three addresses speak TLS 1.3, Raft's to nodes
	// only, and every call needs an identity. They are read again while the node runs.
	TLSCert string
	TLSKey  string
	TLSCA   string
	// AccessFile holds hashed tokens, and limits of single identities (transport/access).
	AccessFile string
	// LimitRate, in calls a second, and LimitInFlight bound what one identity asks of
	// this node where the access file says nothing of it. 0 is no bound.
	LimitRate     int
	LimitInFlight int
	// Insecure lets addresses other than loopback serve plain text to everybody.
	Insecure bool

	// Peers are the first members of a new cluster, this node among them, the
	// same on each. A node that has started once no longer reads them.
	Peers Peers
	// Join makes an empty node wait until a running cluster admits it.
	Join bool

	LogLevel  string // trace, debug, info, warn, error or off
	LogFormat string // text or json
	// SlowTransaction is how long a transaction takes that is told of in the log with
	// its phases and branches; 0 for none.
	SlowTransaction time.Duration
	// OTLPEndpoint is the URL of an OpenTelemetry collector that takes traces over HTTP.
	// Empty means none, unless OTEL_EXPORTER_OTLP_ENDPOINT is set. TraceShare is which
	// share of the transactions is traced whose client has no span of its own, 0 to 1.
	OTLPEndpoint string
	TraceShare   float64

	// Raft's clocks. A leader that is cut off stops within LeaderLease, and
	// another stands for election after HeartbeatTimeout.
	HeartbeatTimeout time.Duration
	ElectionTimeout  time.Duration
	LeaderLease      time.Duration
	// StoreTimeout bounds one write of the log to disk. A node whose disk hangs for
	// so long ends, so that another leads.
	StoreTimeout time.Duration

	// DefaultTimeout is a transaction's when it names none; MaxTimeout bounds what
	// a one-shot transaction may ask for.
	DefaultTimeout time.Duration
	MaxTimeout     time.Duration
	// PrepareTimeout bounds one prepare call, DeliveryTimeout one commit or abort.
	PrepareTimeout  time.Duration
	DeliveryTimeout time.Duration

	// MaxUnfinished bounds the transactions under way, and
	// MaxUnfinishedPerParticipant those that touch one participant.
	MaxUnfinished               int
	MaxUnfinishedPerParticipant int
	// MaxPayload bounds one branch's payload in bytes.
	MaxPayload int

	// Retention is how long a finished transaction answers retries with its
	// outcome; older txids are refused as expired. MaxRetained bounds how many are
	// kept, at some 400 bytes each: past it the oldest go earlier, and with twice as
	// many a leader admits no new transactions.
	Retention   time.Duration
	MaxRetained int

	// DiskHeadroom is the free bytes in DataDir below which a leader admits no new
	// transactions, and DiskReserve what the node's log can grow by even where somebody
	// else fills the disk.
	DiskHeadroom int
	DiskReserve  int

	// StopTimeout bounds a graceful stop, in which leadership is handed over and
	// calls under way are answered. For DrainDelay of it the node goes on as before,
	// but for its health, which load balancers have to notice.
	StopTimeout time.Duration
	DrainDelay  time.Duration
}

// Default is what holds where nothing is said. Its addresses are loopback: to be
// reached from elsewhere is a decision.
func Default() Server {
	return Server{
		LogStore:                    string(cluster.BoltDB),
		RaftAddr:                    "127.0.0.1:7301",
		GRPCAddr:                    "127.0.0.1:7101",
		HTTPAddr:                    "127.0.0.1:7201",
		LogLevel:                    "info",
		LogFormat:                   "text",
		SlowTransaction:             time.Second,
		HeartbeatTimeout:            500 * time.Millisecond,
		ElectionTimeout:             500 * time.Millisecond,
		LeaderLease:                 500 * time.Millisecond,
		StoreTimeout:                cluster.DefaultStoreTimeout,
		DefaultTimeout:              15 * time.Second,
		MaxTimeout:                  time.Hour,
		PrepareTimeout:              10 * time.Second,
		DeliveryTimeout:             5 * time.Second,
		MaxUnfinished:               131072,
		MaxUnfinishedPerParticipant: 16384,
		MaxPayload:                  1 << 20,
		Retention:                   24 * time.Hour,
		MaxRetained:                 1_000_000,
		DiskHeadroom:                cluster.DefaultDiskHeadroom,
		DiskReserve:                 cluster.DefaultDiskReserve,
		StopTimeout:                 10 * time.Second,
	}
}

// settings is the one list of names. Each row reads and writes its field of c.
func (c *Server) settings() []setting {
	return []setting{
		{"node-id", text(&c.NodeID), "this node's `id` in the cluster, for good"},
		{"data-dir", text(&c.DataDir), "`directory` of this node's log and snapshots"},
		{"log-store", text(&c.LogStore), "keep the log in `boltdb` or wal; from boltdb it is moved, for good"},
		{"raft-addr", text(&c.RaftAddr), "listen to other nodes at `host:port`"},
		{"raft-advertise", text(&c.RaftAdvertise), "`host:port` that other nodes dial (default: this node's in peers, else raft-addr)"},
		{"grpc-addr", text(&c.GRPCAddr), "serve gRPC at `host:port`"},
		{"grpc-advertise", text(&c.GRPCAdvertise), "`host:port` at which other nodes forward to this one (default: grpc-addr)"},
		{"http-addr", text(&c.HTTPAddr), "serve JSON over HTTP at `host:port`; empty for none"},
		{"operator-addr", text(&c.OperatorAddr), "serve metrics, health, profiles and log levels at `host:port`, a loopback one; empty for none"},
		{"operator-public", boolean(&c.OperatorPublic), "let operator-addr be other than loopback: profiles show what is in memory"},
		{"tls-cert", text(&c.TLSCert), "PEM `file` of the node's certificate (decree cert issue node)"},
		{"tls-key", text(&c.TLSKey), "PEM `file` of its key"},
		{"tls-ca", text(&c.TLSCA), "PEM `file` of the authorities that certificates are verified against"},
		{"access-file", text(&c.AccessFile), "`file` of hashed tokens and of limits (decree token create)"},
		{"limit-rate", count(&c.LimitRate), "most calls a `second` of one identity at this node; 0 for any number"},
		{"limit-in-flight", count(&c.LimitInFlight), "most calls under way of one identity at this node; 0 for any number"},
		{"insecure", boolean(&c.Insecure), "serve plain text to whoever reaches an address other than loopback"},
		{"peers", peers(&c.Peers), "first members of a new cluster, this node among them, as `id=host:port,...` of raft addresses"},
		{"join", boolean(&c.Join), "wait until a running cluster admits this node (decree cluster add)"},
		{"log-level", text(&c.LogLevel), "trace, debug, info, warn, error or off"},
		{"log-format", text(&c.LogFormat), "text or json"},
		{"slow-transaction", duration(&c.SlowTransaction), "log transactions that take this `time`, with phases and branches; 0 for none"},
		{"otlp-endpoint", text(&c.OTLPEndpoint), "send traces to the OpenTelemetry collector at this `URL`, over HTTP; empty for none"},
		{"trace-share", share(&c.TraceShare), "trace this `share` of the transactions whose client has no span, 0 to 1"},
		{"heartbeat-timeout", duration(&c.HeartbeatTimeout), "stand for election after this `time` without a leader"},
		{"election-timeout", duration(&c.ElectionTimeout), "give up an election after this `time`"},
		{"leader-lease", duration(&c.LeaderLease), "stop leading after this `time` without a majority"},
		{"store-timeout", duration(&c.StoreTimeout), "end the node when one write to disk takes this `time`"},
		{"default-timeout", duration(&c.DefaultTimeout), "`time` of a transaction that names none"},
		{"max-timeout", duration(&c.MaxTimeout), "longest `time` of a one-shot transaction"},
		{"prepare-timeout", duration(&c.PrepareTimeout), "longest `time` of one prepare call"},
		{"delivery-timeout", duration(&c.DeliveryTimeout), "longest `time` of one commit or abort call"},
		{"max-unfinished", count(&c.MaxUnfinished), "most transactions under way; more are refused"},
		{"max-unfinished-per-participant", count(&c.MaxUnfinishedPerParticipant), "most transactions under way that touch one participant"},
		{"max-payload", size(&c.MaxPayload), "most `bytes` of one branch's payload, such as 512KiB"},
		{"retention", duration(&c.Retention), "`time` for which a finished transaction answers retries"},
		{"max-retained", count(&c.MaxRetained), "most finished transactions to keep"},
		{"disk-headroom", size(&c.DiskHeadroom), "admit no new transactions below these free `bytes` of the data directory"},
		{"disk-reserve", size(&c.DiskReserve), "`bytes` of the disk that only this node's log may write, for decisions on a full one"},
		{"stop-timeout", duration(&c.StopTimeout), "longest `time` of a graceful stop"},
		{"drain-delay", duration(&c.DrainDelay), "serve for this `time` of a stop with health off, so that load balancers notice"},
	}
}

// leastClock is the shortest of Raft's clocks that does not take a busy scheduler
// for a dead leader.
const leastClock = 10 * time.Millisecond

// id is what names a node. Ids appear in logs, addresses of tools and file names.
var id = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Validate reports every problem at once, each under its setting's name.
func (c Server) Validate() error {
	var p problems
	p.id("node-id", c.NodeID)
	if c.DataDir == "" {
		p.add("data-dir", "missing: name a directory of this node's own")
	}
	c.validateAddresses(&p)
	c.validateSecurity(&p)
	c.validateMembers(&p)
	p.oneOf("log-store", c.LogStore, string(cluster.BoltDB), string(cluster.WAL))
	p.oneOf("log-level", c.LogLevel, "trace", "debug", "info", "warn", "error", "off")
	p.oneOf("log-format", c.LogFormat, "text", "json")
	c.validateBounds(&p)
	return errors.Join(p...)
}

func (c Server) validateAddresses(p *problems) {
	p.address("raft-addr", c.RaftAddr)
	p.address("grpc-addr", c.GRPCAddr)
	if c.HTTPAddr != "" {
		p.address("http-addr", c.HTTPAddr)
	}
	if c.OperatorAddr != "" {
		if err := operator.Check(c.OperatorAddr, c.OperatorPublic); err != nil {
			p.add("operator-addr", "%s", err)
		}
	}
	p.dialable("raft-advertise", c.AdvertisedRaft(), c.RaftAddr)
	p.dialable("grpc-advertise", c.AdvertisedGRPC(), c.GRPCAddr)

	listeners := map[string]string{}
	for _, l := range []struct{ name, addr string }{
		{"raft-addr", c.RaftAddr}, {"grpc-addr", c.GRPCAddr}, {"http-addr", c.HTTPAddr},
		{"operator-addr", c.OperatorAddr},
	} {
		if l.addr == "" || strings.HasSuffix(l.addr, ":0") {
			continue
		}
		if other, taken := listeners[l.addr]; taken {
			p.add(l.name, "%s is %s already", l.addr, other)
		}
		listeners[l.addr] = l.name
	}
}

func (c Server) validateMembers(p *problems) {
	switch {
	case c.Join && len(c.Peers) > 0:
		p.add("join", "excludes peers: a node founds a cluster with its peers, or joins a running one")
	case !c.Join && len(c.Peers) == 0:
		p.add("peers", "missing: name the first members, this node among them (id=host:port,...), or set join")
	}
	if len(c.Peers) == 0 {
		return
	}
	addresses := map[string]string{}
	for _, peer := range c.Peers {
		p.id("peers", peer.ID)
		p.address("peers", peer.Addr)
		if other, taken := addresses[peer.Addr]; taken {
			p.add("peers", "%s and %s have the same address %s", other, peer.ID, peer.Addr)
		}
		addresses[peer.Addr] = peer.ID
	}
	own, found := c.Peers.find(c.NodeID)
	if !found && c.NodeID != "" {
		p.add("peers", "%s does not name this node, %s", c.Peers, c.NodeID)
	}
	if found && c.RaftAdvertise != "" && c.RaftAdvertise != own.Addr {
		p.add("raft-advertise", "%s, but peers has this node at %s", c.RaftAdvertise, own.Addr)
	}
}

func (c Server) validateBounds(p *problems) {
	if c.TraceShare < 0 || c.TraceShare > 1 {
		p.add("trace-share", "%g: want 0 to 1", c.TraceShare)
	}
	if u, err := url.Parse(c.OTLPEndpoint); c.OTLPEndpoint != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		p.add("otlp-endpoint", "%q: want a URL such as http://127.0.0.1:4318", c.OTLPEndpoint)
	}
	if c.SlowTransaction < 0 {
		p.add("slow-transaction", "%s: must not be negative", c.SlowTransaction)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"heartbeat-timeout", c.HeartbeatTimeout}, {"election-timeout", c.ElectionTimeout},
		{"leader-lease", c.LeaderLease}, {"store-timeout", c.StoreTimeout},
		{"default-timeout", c.DefaultTimeout},
		{"max-timeout", c.MaxTimeout}, {"prepare-timeout", c.PrepareTimeout},
		{"delivery-timeout", c.DeliveryTimeout}, {"retention", c.Retention},
		{"stop-timeout", c.StopTimeout},
	} {
		if d.value <= 0 {
			p.add(d.name, "%s: must be more than zero", d.value)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"heartbeat-timeout", c.HeartbeatTimeout}, {"election-timeout", c.ElectionTimeout},
		{"leader-lease", c.LeaderLease}, {"store-timeout", c.StoreTimeout},
	} {
		if d.value > 0 && d.value < leastClock {
			p.add(d.name, "%s: must be at least %s", d.value, leastClock)
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"max-unfinished", c.MaxUnfinished}, {"max-payload", c.MaxPayload},
		{"max-unfinished-per-participant", c.MaxUnfinishedPerParticipant},
		{"max-retained", c.MaxRetained}, {"disk-headroom", c.DiskHeadroom}, {"disk-reserve", c.DiskReserve},
	} {
		if n.value <= 0 {
			p.add(n.name, "%d: must be more than zero", n.value)
		}
	}
	if c.MaxPayload > fsm.MaxTransactionBytes {
		p.add("max-payload", "%d: a transaction takes at most %d bytes", c.MaxPayload, fsm.MaxTransactionBytes)
	}
	if c.Retention > 0 && c.Retention < node.MinRetention {
		p.add("retention", "%s: must be at least %s, longer than any client retries", c.Retention, showDuration(node.MinRetention))
	}
	if c.DrainDelay < 0 {
		p.add("drain-delay", "%s: must not be less than zero", c.DrainDelay)
	}
	if c.StopTimeout > 0 && c.DrainDelay >= c.StopTimeout {
		p.add("drain-delay", "%s: must be less than stop-timeout, %s, which it is part of", c.DrainDelay, c.StopTimeout)
	}
	p.ordered("leader-lease", c.LeaderLease, "heartbeat-timeout", c.HeartbeatTimeout)
	p.ordered("heartbeat-timeout", c.HeartbeatTimeout, "election-timeout", c.ElectionTimeout)
	p.ordered("default-timeout", c.DefaultTimeout, "max-timeout", c.MaxTimeout)
}

// AdvertisedRaft is the address that peers dial.
func (c Server) AdvertisedRaft() string {
	if c.RaftAdvertise != "" {
		return c.RaftAdvertise
	}
	if own, found := c.Peers.find(c.NodeID); found {
		return own.Addr
	}
	return c.RaftAddr
}

// AdvertisedGRPC is the address at which followers forward to this node.
func (c Server) AdvertisedGRPC() string {
	if c.GRPCAdvertise != "" {
		return c.GRPCAdvertise
	}
	return c.GRPCAddr
}

// problems collects what is wrong.
type problems []error

func (p *problems) add(name, format string, args ...any) {
	*p = append(*p, &Problem{Setting: name, Text: fmt.Sprintf(format, args...)})
}

func (p *problems) id(name, value string) {
	switch {
	case value == "":
		p.add(name, "missing: a node needs an id, such as n1")
	case !id.MatchString(value):
		p.add(name, "%q: want letters, digits, '.', '_' and '-', at most 64, a letter or digit first", value)
	}
}

func (p *problems) address(name, value string) {
	if _, err := splitAddress(value); err != nil {
		p.add(name, "%q: want host:port", value)
	}
}

// dialable refuses an address that only a listener can use, such as 0.0.0.0.
func (p *problems) dialable(name, value, listen string) {
	host, err := splitAddress(value)
	if err != nil {
		if value != listen { // else reported there
			p.add(name, "%q: want host:port", value)
		}
		return
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		p.add(name, "missing: nobody can dial %s", value)
	}
}

func (p *problems) oneOf(name, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(name, "%q: want one of %s", value, strings.Join(allowed, ", "))
	}
}

func (p *problems) ordered(low string, l time.Duration, high string, h time.Duration) {
	if l > 0 && h > 0 && l > h {
		p.add(low, "%s: must not exceed %s, %s", l, high, h)
	}
}

func splitAddress(address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return host, err
}
