package cluster

import (
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// TransportOptions chooses between this package's transport and the library's, for
// the tests that show what the difference is good for.
type TransportOptions struct {
	InFlight   int  // 0: what this package uses
	Heartbeats bool // leave the library its heartbeat handler
}

// NewTransport opens a port at an address and returns a Raft transport over it.
// Close the transport, then call wait.
func NewTransport(network Network, address string, o TransportOptions) (t raft.Transport, wait func(), err error) {
	p, err := listen(Config{Bind: address, Advertise: address, Network: network, Logger: hclog.NewNullLogger()})
	if err != nil {
		return nil, nil, err
	}
	p.open(func(net.Conn) {})
	if o.InFlight == 0 {
		o.InFlight = maxRPCsInFlight
	}
	bare := newNetworkTransport(p, o.InFlight, 5*time.Second, hclog.NewNullLogger())
	if o.Heartbeats {
		return bare, p.wait, nil
	}
	return transport{bare}, p.wait, nil
}
