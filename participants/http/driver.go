package httpparticipant

import (
	"context"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
)

// Driver opens participants that are HTTP services. Its registrations carry a
// [Config].
type Driver struct{}

var _ participants.Driver = Driver{}

// Check implements participants.Driver.
func (Driver) Check(config []byte) error {
	_, err := parseConfig(config)
	return err
}

// Open implements participants.Driver. It waits neither for the service nor for
// the node's credentials: a call that cannot reach the one or read the others
// fails, and the next one tries again.
func (Driver) Open(_ context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	cfg, err := parseConfig(r.Config)
	if err != nil {
		return nil, err
	}
	if cfg.exposesToken() {
		log.Warn("the participant's token crosses the network in the clear: its url is plain http to another host")
	}
	learning, stop := context.WithCancel(context.Background())
	c := &client{
		url:          strings.TrimRight(cfg.URL, "/"),
		pool:         newPool(cfg, log),
		log:          log,
		stopLearning: stop,
		learnt:       make(chan struct{}),
	}
	go c.learn(learning)
	return c, nil
}
