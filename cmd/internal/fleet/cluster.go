package fleet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
)

// Nodes is how many nodes a cluster has unless asked otherwise: the fewest that
// survive the loss of one.
const Nodes = 3

// Node is one `decree server`.
type Node struct {
	*Process
	Endpoint string // its gRPC address
	HTTP     string // that of its gateway
}

// Cluster is the nodes, by their number.
type Cluster []*Node

// Blocks of ports, counted from the base; within each, nodes and services count
// from 1.
const (
	grpcPorts    = 0
	httpPorts    = 100
	raftPorts    = 200
	servicePorts = 300

	blockPorts = 9 // that are looked at, of each block
)

// Port is the first of the ports that a fleet uses.
type Port int

func (p Port) address(block, n int) string { return fmt.Sprintf("127.0.0.1:%d", int(p)+block+n) }

// Service is the address of the n-th service, from 1.
func (p Port) Service(n int) string { return p.address(servicePorts, n) }

// UsualPort is where the endpoints are that commands use when none are given, so
// that a person can look in without saying where.
const UsualPort = Port(7100)

// Other fleets use ports below those from which systems choose for outgoing
// connections: a node that is killed has to get its own back.
const (
	lowestPort  = 10_000
	highestPort = 31_000
	portTries   = 200
)

// FreePort is a port from which all are free: the one asked for, or another.
func FreePort(asked Port) (Port, error) {
	if asked != 0 && asked.free() {
		return asked, nil
	}
	for range portTries {
		if p := Port(lowestPort + rand.N(highestPort-lowestPort)); p.free() { //nolint:gosec // no secret
			return p, nil
		}
	}
	return 0, errors.New("no free ports on 127.0.0.1")
}

func (p Port) free() bool {
	for _, block := range []int{grpcPorts, httpPorts, raftPorts, servicePorts} {
		for n := 1; n <= blockPorts; n++ {
			l, err := net.Listen("tcp", p.address(block, n))
			if err != nil {
				return false
			}
			l.Close() //nolint:errcheck // nothing was accepted
		}
	}
	return true
}

// Options are what a cluster differs in from the usual one. The zero Options are
// none.
type Options struct {
	Nodes  int      // how many, at most 9; 0 stands for the usual Nodes
	Args   []string // further ones of every node
	Prefix string   // of the nodes' ids, where a fleet has several clusters
	// Env are further environment variables of a node, NAME=value; nil for none.
	Env func(id string) []string
	// DataDir is where a node keeps its data; nil is a directory of its name.
	DataDir func(id string) string
	// Front gives the address that the other nodes dial instead of a node's own,
	// such as that of a proxy; nil leaves them alone. It is asked twice for each
	// node: Raft, and what followers forward to.
	Front func(id, address string) (string, error)
}

func (o Options) withDefaults(dir string) Options {
	if o.Nodes == 0 {
		o.Nodes = Nodes
	}
	if o.Env == nil {
		o.Env = func(string) []string { return nil }
	}
	if o.DataDir == nil {
		o.DataDir = func(id string) string { return filepath.Join(dir, id) }
	}
	if o.Front == nil {
		o.Front = func(_, address string) (string, error) { return address, nil }
	}
	return o
}

// StartCluster starts the nodes n1, n2 and n3. It does not wait until one leads.
func (f *Fleet) StartCluster(port Port) (Cluster, error) { return f.StartClusterWith(port, Options{}) }

// StartClusterWith is StartCluster with options.
func (f *Fleet) StartClusterWith(port Port, o Options) (Cluster, error) {
	o = o.withDefaults(f.dir)
	var peers, forwards []string
	for n := 1; n <= o.Nodes; n++ {
		id := o.Prefix + NodeID(n)
		raft, err := o.Front(id, port.address(raftPorts, n))
		if err != nil {
			return nil, err
		}
		forward, err := o.Front(id, port.address(grpcPorts, n))
		if err != nil {
			return nil, err
		}
		peers, forwards = append(peers, id+"="+raft), append(forwards, forward)
	}
	var c Cluster
	for n := 1; n <= o.Nodes; n++ {
		id := o.Prefix + NodeID(n)
		args := []string{"server", "--node-id", id, "--data-dir", o.DataDir(id),
			"--raft-addr", port.address(raftPorts, n), "--grpc-addr", port.address(grpcPorts, n),
			"--grpc-advertise", forwards[n-1],
			"--http-addr", port.address(httpPorts, n), "--peers", strings.Join(peers, ",")}
		p, err := f.StartWith(o.Env(id), id, append(args, o.Args...)...)
		if err != nil {
			return c, err
		}
		c = append(c, &Node{p, port.address(grpcPorts, n), port.address(httpPorts, n)})
	}
	return c, nil
}

// NodeID is the id of a cluster's n-th node, from 1.
func NodeID(n int) string { return fmt.Sprintf("n%d", n) }

// NodeIDs are the ids of so many nodes.
func NodeIDs(count int) []string {
	var all []string
	for n := 1; n <= count; n++ {
		all = append(all, NodeID(n))
	}
	return all
}

// Endpoints are the nodes' gRPC addresses.
func (c Cluster) Endpoints() []string {
	var all []string
	for _, n := range c {
		all = append(all, n.Endpoint)
	}
	return all
}

// Node finds a node by its id.
func (c Cluster) Node(id string) (*Node, bool) {
	for _, n := range c {
		if n.Name() == id {
			return n, true
		}
	}
	return nil, false
}
