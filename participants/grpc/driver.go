package grpcparticipant

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/decree-tx/decree/participants"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
)

const (
	// maxMessage bounds a message in both directions. It is what gRPC servers
	// accept unless they are told otherwise, so that a payload which is too large
	// fails here with a clear text, and with any service in the same way.
	maxMessage = 4 << 20

	// A restarted service must be found quickly, because its prepared branches
	// hold their locks until the decision reaches it: hence the low ceiling.
	reconnectFirst = 50 * time.Millisecond
	reconnectMax   = 2 * time.Second
	connectTimeout = 5 * time.Second

	// The peer of a silent connection is asked whether it lives. Servers that were
	// not told otherwise take more than two pings in five minutes without traffic
	// of their own for abuse and hang up; calls last seconds, so a ping is rare.
	// Timeout also bounds how long sent bytes may stay unacknowledged
	// (TCP_USER_TIMEOUT), which is what finds a cut link.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 5 * time.Second
)

// Driver opens participants that are gRPC services. Its registrations carry a
// [Config].
type Driver struct{}

var _ participants.Driver = Driver{}

// Check implements participants.Driver.
func (Driver) Check(config []byte) error {
	_, err := parseConfig(config)
	return err
}

// Open implements participants.Driver. It does not wait for the service: the
// connection is made in the background and made again whenever it is lost, and
// until it stands calls fail at once.
func (Driver) Open(_ context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	cfg, err := parseConfig(r.Config)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("dns:///"+cfg.Target, dialOptions(cfg, log)...)
	if err != nil {
		return nil, fmt.Errorf("target %q: %w", cfg.Target, err)
	}
	return newClient(conn, log), nil
}

// newClient takes conn over.
func newClient(conn *grpc.ClientConn, log hclog.Logger) *client {
	c := &client{
		conn:   conn,
		api:    participantv1.NewParticipantClient(conn),
		log:    log,
		learnt: make(chan struct{}),
	}
	c.streams.start(conn, c.api, log)
	learning, stop := context.WithCancel(context.Background())
	c.stopLearning = stop
	go c.learn(learning)
	return c
}

func dialOptions(cfg Config, log hclog.Logger) []grpc.DialOption {
	var secured credentials.TransportCredentials = &security{cfg: cfg, log: log}
	if cfg.insecure() {
		secured = insecure.NewCredentials()
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(secured),
		// Retries are the coordinator's, and their pace is part of its bounds: a
		// service configuration found in DNS must not add its own.
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay:  reconnectFirst,
				Multiplier: 1.6,
				Jitter:     0.2,
				MaxDelay:   reconnectMax,
			},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessage),
			grpc.MaxCallSendMsgSize(maxMessage),
		),
	}
	if cfg.Authority != "" {
		opts = append(opts, grpc.WithAuthority(cfg.Authority))
	}
	return opts
}
