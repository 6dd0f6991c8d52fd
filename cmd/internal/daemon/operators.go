package daemon

import (
	"errors"
	"sync"

	"github.com/decree-tx/decree/cmd/internal/logs"
	"github.com/decree-tx/decree/cmd/internal/metrics"
	"github.com/decree-tx/decree/cmd/internal/operator"
	"github.com/decree-tx/decree/coordinator/node"
)

// serveOperators comes before the node, which may wait long for its peers: that is what
// its health tells then.
func (d *Daemon) serveOperators(levels *logs.Levels) error {
	if d.cfg.OperatorAddr == "" {
		return nil
	}
	var err error
	d.operators, err = operator.Listen(d.cfg.OperatorAddr, operator.Config{
		Metrics: d.metrics.Handler(), Ready: d.fitness.check, Levels: levels,
	})
	if err != nil {
		return err
	}
	d.Operator = d.operators.Addr()
	return nil
}

func (d *Daemon) closeOperators() {
	if d.operators != nil {
		d.operators.Close() //nolint:errcheck // nothing depends on it
	}
}

// fitness is whether clients are better off elsewhere.
type fitness struct {
	mu                sync.Mutex
	node              *node.Node // nil before it has opened
	serving, stopping bool
}

func (r *fitness) opened(n *node.Node) { r.change(func() { r.node = n }) }
func (r *fitness) serves()             { r.change(func() { r.serving = true }) }
func (r *fitness) stops()              { r.change(func() { r.stopping = true }) }

func (r *fitness) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// The reasons for not being ready.
var (
	errOpening  = errors.New("the node opens its log, or waits for its peers")
	errStopping = errors.New("the node stops")
	errNoLeader = errors.New("the node knows of no leader")
)

// check says why clients should go elsewhere; nil where this node serves them.
func (r *fitness) check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stopping:
		return errStopping
	case r.node == nil, !r.serving:
		return errOpening
	}
	if _, known := r.node.Cluster.Leader(); !known {
		return errNoLeader
	}
	return nil
}

// expiry tells monitoring of the certificates in use.
func (s *security) expiry() (all []metrics.Certificate) {
	if s == nil {
		return nil
	}
	for _, e := range s.certificates.Expiry() {
		all = append(all, metrics.Certificate{Use: e.Use, Subject: e.Subject, Until: e.Until})
	}
	return all
}
