// Package papers makes what the processes of a run on this machine prove themselves
// with: an authority of its own, and certificates for nodes, for services that take
// part and for whoever drives the run, each in files and with the settings by which its
// holder finds them.
//
// It owns the files, and replaces them while they are used, as an operator's cron does:
// a pair is written anew at half of its life, each file by a rename, and nobody is told.
// It starts no process and makes no connection. A nil *Papers is a run in plain text, so
// that its users do the same with and without.
package papers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/decree-tx/decree/transport/certs"
	"github.com/decree-tx/decree/transport/client"
)

const (
	// Lasting is a life longer than any measurement's: such certificates are not replaced
	// while something is measured.
	Lasting = 4 * 24 * time.Hour
	// Brief is a life that ends many times in a run. A new certificate is in use two
	// seconds after it was written, and the old one is good for ten.
	Brief = 20 * time.Second
	// authorityLife is past the end of whatever runs.
	authorityLife = 10 * 365 * 24 * time.Hour
)

// Those who drive a run: the operator administers and audits, the client has the
// traffic, and calls are made to services as nodes make them.
var (
	operator = certs.Identity{Role: certs.Operator, Name: "run"}
	traffic  = certs.Identity{Role: certs.Client, Name: "run"}
	calls    = certs.Identity{Role: certs.Node, Name: "calls"}
)

// Config says whom the papers are for.
type Config struct {
	Dir      string        // made; nothing else may be there
	Life     time.Duration // of each certificate, a few seconds at least
	Nodes    []string      // ids
	Services []string      // names of processes that take part over gRPC
}

// Papers are those of one run. Its methods may be called concurrently.
type Papers struct {
	// set once by New
	dir       string
	life      time.Duration
	authority certs.Pair
	pool      *x509.CertPool
	holders   []certs.Identity
	stop      context.CancelFunc
	work      sync.WaitGroup // the keeper

	mu      sync.Mutex
	calls   tls.Certificate // what calls shows now; guarded by mu
	ends    []time.Time     // of every certificate that was issued; guarded by mu
	failure error           // of the keeper, which ended with it; guarded by mu
}

// New makes the authority and all certificates, and keeps them fresh until Close.
func New(cfg Config) (_ *Papers, err error) {
	p := &Papers{dir: cfg.Dir, life: cfg.Life, pool: x509.NewCertPool(), holders: []certs.Identity{operator, traffic, calls}}
	for _, id := range cfg.Nodes {
		p.holders = append(p.holders, certs.Identity{Role: certs.Node, Name: id})
	}
	for _, name := range cfg.Services {
		p.holders = append(p.holders, certs.Identity{Role: certs.Participant, Name: name})
	}
	if p.authority, err = certs.NewAuthority("run", authorityLife); err != nil {
		return nil, err
	}
	p.pool.AppendCertsFromPEM(p.authority.Certificate)
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		return nil, err
	}
	if err := p.authority.Write(p.path("ca.pem"), p.path("ca.key")); err != nil {
		return nil, err
	}
	if err := p.Renew(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.work.Go(func() { p.keep(ctx) })
	return p, nil
}

// keep renews everything at half of its life. After a failure it ends: what expires
// then is found by the run, and Close says why.
func (p *Papers) keep(ctx context.Context) {
	tick := time.NewTicker(p.life / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := p.Renew(); err != nil {
			p.mu.Lock()
			p.failure = err
			p.mu.Unlock()
			return
		}
	}
}

// Renew replaces every certificate, and its key, now.
func (p *Papers) Renew() error {
	var errs []error
	for _, who := range p.holders {
		if err := p.renew(who); err != nil {
			errs = append(errs, fmt.Errorf("a certificate for %s: %w", who, err))
		}
	}
	return errors.Join(errs...)
}

func (p *Papers) renew(who certs.Identity) error {
	request := certs.Request{Identity: who, Lifetime: p.life}
	if who.Role == certs.Node || who.Role == certs.Participant {
		request.Hosts = []string{"127.0.0.1"}
	}
	pair, err := certs.Issue(p.authority, request)
	if err != nil {
		return err
	}
	shown, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.ends = append(p.ends, shown.Leaf.NotAfter)
	if who == calls {
		p.calls = shown
	}
	p.mu.Unlock()
	return p.put(p.files(who), pair)
}

// put writes a pair over another, each file at once.
func (p *Papers) put(to certs.Files, pair certs.Pair) error {
	const fresh = ".new"
	if err := pair.Write(to.Certificate+fresh, to.Key+fresh); err != nil {
		return err
	}
	return errors.Join(os.Rename(to.Certificate+fresh, to.Certificate), os.Rename(to.Key+fresh, to.Key))
}

func (p *Papers) path(name string) string { return filepath.Join(p.dir, name) }

func (p *Papers) files(who certs.Identity) certs.Files {
	name := string(who.Role) + "-" + who.Name
	return certs.Files{CA: p.path("ca.pem"), Certificate: p.path(name + ".pem"), Key: p.path(name + ".key")}
}

// NodeFiles are where a node's own lie; none in plain text.
func (p *Papers) NodeFiles(id string) certs.Files {
	if p == nil {
		return certs.Files{}
	}
	return p.files(certs.Identity{Role: certs.Node, Name: id})
}

// Node are the environment variables by which a node finds its own.
func (p *Papers) Node(id string) []string {
	if p == nil {
		return nil
	}
	f := p.NodeFiles(id)
	return []string{"DECREE_TLS_CA=" + f.CA, "DECREE_TLS_CERT=" + f.Certificate, "DECREE_TLS_KEY=" + f.Key}
}

// Service are the arguments by which `decree participant` finds its own.
func (p *Papers) Service(name string) []string {
	if p == nil {
		return nil
	}
	f := p.files(certs.Identity{Role: certs.Participant, Name: name})
	return []string{"--ca", f.CA, "--cert", f.Certificate, "--key", f.Key}
}

// Registration is what a service at an address is registered with: where nodes find
// what they show to it. They share it, for all of them are on this machine.
func (p *Papers) Registration(address string) map[string]any {
	fields := map[string]any{"target": address}
	if p != nil {
		f := p.files(calls)
		fields["ca"], fields["certificate"], fields["key"] = "file:"+f.CA, "file:"+f.Certificate, "file:"+f.Key
	}
	return fields
}

// Calls are the credentials of one who calls a service as nodes do.
func (p *Papers) Calls() credentials.TransportCredentials {
	if p == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    p.pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			shown := p.calls
			return &shown, nil
		},
	})
}

// Operator is the security of clients that administer and audit.
func (p *Papers) Operator() client.Security { return p.security(operator) }

// Client is the security of clients that run transactions.
func (p *Papers) Client() client.Security { return p.security(traffic) }

func (p *Papers) security(who certs.Identity) client.Security {
	if p == nil {
		return client.Security{}
	}
	f := p.files(who)
	return client.Security{CA: f.CA, Certificate: f.Certificate, Key: f.Key}
}

// Look are the environment variables by which a person's commands administer.
func (p *Papers) Look() []string {
	if p == nil {
		return nil
	}
	f := p.files(operator)
	return []string{"DECREE_CA=" + f.CA, "DECREE_CERT=" + f.Certificate, "DECREE_KEY=" + f.Key}
}

// Expired is how many certificates have been issued whose life is over.
func (p *Papers) Expired() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, end := range p.ends {
		if time.Now().After(end) {
			n++
		}
	}
	return n
}

// Close has nothing more replaced. Its error is of what could not be.
func (p *Papers) Close() error {
	if p == nil {
		return nil
	}
	p.stop()
	p.work.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}
