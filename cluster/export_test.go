package cluster

import (
	"cmp"
	"context"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// RaceDetector says that everything takes several times as long.
const RaceDetector = raceDetector

// TransportOptions chooses between this package's transport and the library's, for
// the tests that show what the difference is good for.
type TransportOptions struct {
	InFlight   int  // 0: what this package uses
	Heartbeats bool // leave the library its heartbeat handler
	Direct     bool // leave the library what comes in
}

// NewTransport opens a port at an address and returns a Raft transport over it.
// Close the transport, then call wait.
func NewTransport(network Network, address string, o TransportOptions) (t raft.Transport, wait func(), err error) {
	p, err := listen(Config{Bind: address, Advertise: address, Network: network, Logger: hclog.NewNullLogger()})
	if err != nil {
		return nil, nil, err
	}
	p.open(func(net.Conn) {})
	inFlight := cmp.Or(o.InFlight, maxRPCsInFlight)
	bare := newNetworkTransport(p, inFlight, 5*time.Second, hclog.NewNullLogger())
	switch {
	case o.Heartbeats:
		return bare, p.wait, nil
	case o.Direct, o.InFlight != 0:
		return withoutHeartbeats{bare}, p.wait, nil
	}
	return transport{bare, make(chan raft.RPC)}, p.wait, nil
}

// Receive has a transport's messages pass through what makes up for the library's
// faults, until ctx ends, and returns once they do no more.
func Receive(ctx context.Context, t raft.Transport, r *raft.Raft, log raft.LogStore, snapshots raft.SnapshotStore) {
	if own, ok := t.(transport); ok {
		newReceiver(r, log, snapshots, own.toRaft).run(ctx, own.NetworkTransport.Consumer())
	}
}

// withoutHeartbeats is the library's transport with nothing but their handler left out.
type withoutHeartbeats struct{ *raft.NetworkTransport }

func (withoutHeartbeats) SetHeartbeatHandler(func(raft.RPC)) {}
