package httpparticipant

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
)

const (
	// connectTimeout and handshakeTimeout end an attempt at a connection that its
	// call no longer waits for, but that may still serve the next one.
	connectTimeout   = 5 * time.Second
	handshakeTimeout = 5 * time.Second
	// idleTimeout gives connections back after a burst. Services close theirs
	// sooner as a rule, which costs nothing (see post).
	idleTimeout = time.Minute
	// The peer of a silent connection is asked whether it lives, so that a link that
	// was cut is found in half a minute and not by the next calls.
	keepaliveIdle     = 15 * time.Second
	keepaliveInterval = 5 * time.Second
	keepaliveCount    = 3
	// maxHeader bounds the headers of a response.
	maxHeader = 64 << 10
	// rereadPause is how long what the references refer to is taken for the same: a
	// rotated token is used a moment later, and calls do not each read files.
	rereadPause = time.Second
)

// pool holds the connections to the service, and the credentials that they and
// the requests are made with. It reads these again while it is used.
type pool struct {
	// Set once by newPool.
	cfg Config
	log hclog.Logger

	mu sync.Mutex
	// Guarded by mu.
	held     credentials
	prepares *http.Transport // nil until the credentials have been read once
	others   *http.Transport
	reread   time.Time // when to look at the references again
	complain string    // the last failure to read them, "" if there was none
}

// credentials are what the references of a Config refer to.
type credentials struct {
	token, ca, certificate, key string
}

// ofConnections are those that connections are made with; the token goes with
// each request.
func (c credentials) ofConnections() credentials {
	c.token = ""
	return c
}

func newPool(cfg Config, log hclog.Logger) *pool { return &pool{cfg: cfg, log: log} }

// route gives the connections for an operation and the present token. Prepares
// have connections of their own: a service may let a prepare wait for a lock that
// only a commit frees, and that commit must not wait for a connection.
//
// Where the references cannot be read, what was read last is used on: a rotation
// replaces several files, one after the other.
func (p *pool) route(op operation) (t *http.Transport, token string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.prepares == nil || !now.Before(p.reread) {
		p.reread = now.Add(rereadPause)
		err := p.read()
		p.report(err)
		if err != nil && p.prepares == nil {
			return nil, "", err
		}
	}
	if op == opPrepare {
		return p.prepares, p.held.token, nil
	}
	return p.others, p.held.token, nil
}

// read resolves the references. Connections that were made with other
// certificates are left: they end with the call that uses them.
func (p *pool) read() error {
	found, err := resolve(p.cfg)
	if err != nil {
		return err
	}
	if p.prepares == nil || found.ofConnections() != p.held.ofConnections() {
		security, err := p.cfg.tls(found)
		if err != nil {
			return err
		}
		p.closeIdle()
		p.prepares, p.others = newTransport(p.cfg, security), newTransport(p.cfg, security)
	}
	p.held = found
	return nil
}

// report logs that the references cannot be read, or can again, once each time.
func (p *pool) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == p.complain:
	case err != nil && p.prepares != nil:
		p.log.Warn("credentials cannot be read again: the ones read before stay in use", "error", err)
	case err == nil:
		p.log.Info("credentials can be read again")
	}
	p.complain = text
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeIdle()
}

func (p *pool) closeIdle() {
	if p.prepares != nil {
		p.prepares.CloseIdleConnections()
		p.others.CloseIdleConnections()
	}
}

// resolve reads what the references refer to. The errors name references only.
func resolve(cfg Config) (credentials, error) {
	var c credentials
	var problems []error
	for _, r := range []struct {
		field string
		from  participants.Reference
		into  *string
	}{
		{"token", cfg.Token, &c.token},
		{"ca", cfg.CA, &c.ca},
		{"certificate", cfg.Certificate, &c.certificate},
		{"key", cfg.Key, &c.key},
	} {
		if r.from == "" {
			continue
		}
		var err error
		if *r.into, err = r.from.Resolve(); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", r.field, err))
		}
	}
	if strings.ContainsFunc(c.token, unfitForHeader) {
		problems = append(problems, fmt.Errorf("token: what %s holds has a space or another character that no token has", cfg.Token))
	}
	return c, errors.Join(problems...)
}

// unfitForHeader reports a character that no bearer token has (RFC 6750). A
// header with a line feed would be refused later, in words that help nobody.
func unfitForHeader(r rune) bool { return r <= ' ' || r > '~' }

// tls is how connections are secured: TLS 1.3 and nothing below.
func (cfg Config) tls(c credentials) (*tls.Config, error) {
	security := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: cfg.ServerName}
	if c.ca != "" {
		security.RootCAs = x509.NewCertPool()
		if !security.RootCAs.AppendCertsFromPEM([]byte(c.ca)) {
			return nil, fmt.Errorf("ca: %s holds no PEM certificate", cfg.CA)
		}
	}
	if c.certificate != "" {
		pair, err := tls.X509KeyPair([]byte(c.certificate), []byte(c.key))
		if err != nil {
			return nil, fmt.Errorf("certificate %s and key %s: %w", cfg.Certificate, cfg.Key, err)
		}
		security.Certificates = []tls.Certificate{pair}
	}
	return security, nil
}

// newTransport makes a pool of HTTP/1.1 connections. HTTP/2 would put all calls
// on one connection, where a lost packet holds up each of them, and lets a service
// set bounds of its own for how many there may be.
func newTransport(cfg Config, security *tls.Config) *http.Transport {
	dialer := &net.Dialer{
		Timeout: connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable:   true,
			Idle:     keepaliveIdle,
			Interval: keepaliveInterval,
			Count:    keepaliveCount,
		},
	}
	t := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        security,
		TLSHandshakeTimeout:    handshakeTimeout,
		MaxConnsPerHost:        cfg.connections(),
		MaxIdleConnsPerHost:    cfg.connections(), // the default of 2 would dial anew under load
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // a bound on the body is a bound on the answer
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if cfg.ProxyFromEnvironment {
		t.Proxy = http.ProxyFromEnvironment
	}
	return t
}
