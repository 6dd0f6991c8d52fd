package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/transport"
	"github.com/decree-tx/decree/transport/access"
	"github.com/decree-tx/decree/transport/certs"
)

// security is what a node proves itself with, and knows its callers by. A nil one is of
// a node that speaks plain text.
type security struct {
	certificates *certs.Source
	access       *access.File // nil for none
}

// openSecurity reads the files. What is wrong with them is told at once.
func openSecurity(cfg config.Server, log hclog.Logger) (*security, error) {
	if !cfg.Secured() {
		if cfg.Insecure {
			log.Warn("plain text: whoever reaches this node's addresses can do anything", "node", cfg.NodeID)
		}
		return nil, nil
	}
	log = log.Named("security")
	var s security
	var problems []error
	var err error
	files := certs.Files{CA: cfg.TLSCA, Certificate: cfg.TLSCert, Key: cfg.TLSKey}
	if s.certificates, err = certs.OpenNode(files, log); err != nil {
		problems = append(problems, fmt.Errorf("tls-cert, tls-key and tls-ca: %w", err))
	}
	if cfg.AccessFile != "" {
		if s.access, err = access.Open(cfg.AccessFile, log); err != nil {
			problems = append(problems, fmt.Errorf("access-file: %w", err))
		}
	}
	return &s, errors.Join(problems...)
}

// ofAPI is the security of the API.
func (s *security) ofAPI(cfg config.Server) transport.Security {
	if s == nil {
		return transport.Security{}
	}
	return transport.Security{
		Certificates: s.certificates,
		Access:       s.access,
		Limits:       access.Limits{Rate: float64(cfg.LimitRate), InFlight: cfg.LimitInFlight},
	}
}

// network is how the node reaches its peers; nil is plain TCP.
func (s *security) network() cluster.Network {
	if s == nil {
		return nil
	}
	return certs.Network{Source: s.certificates}
}

// watch reads the files again every few seconds, until the function that it returns is
// called.
func (s *security) watch() (stop func()) {
	if s == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { s.certificates.Watch(ctx) })
	if s.access != nil {
		work.Go(func() { s.access.Watch(ctx) })
	}
	return func() {
		cancel()
		work.Wait()
	}
}

// Reload reads certificates and access file again, now. What can't be read stays as it
// was, and is logged.
func (d *Daemon) Reload() {
	if d.security == nil {
		return
	}
	d.logger.Info("reading certificates and access file again", "node", d.cfg.NodeID)
	d.security.certificates.Reload() //nolint:errcheck,gosec // reported
	if d.security.access != nil {
		d.security.access.Reload() //nolint:errcheck,gosec // reported
	}
}

// Certificates are what the node proves itself with, for those who look at when they
// expire; nil where it speaks plain text.
func (d *Daemon) Certificates() *certs.Source {
	if d.security == nil {
		return nil
	}
	return d.security.certificates
}
