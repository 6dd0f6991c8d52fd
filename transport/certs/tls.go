package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
)

// Server is TLS for a listener: whoever connects may show a certificate, and one that
// is shown must be good. protocols are what may be spoken over it, such as "h2".
func (s *Source) Server(protocols ...string) *tls.Config {
	return s.server(tls.VerifyClientCertIfGiven, nil, protocols)
}

// ServerForNodes is Server for those with a node's certificate, and nobody else.
func (s *Source) ServerForNodes(protocols ...string) *tls.Config {
	return s.server(tls.RequireAndVerifyClientCert, nodesOnly, protocols)
}

func (s *Source) server(auth tls.ClientAuthType, verify func(tls.ConnectionState) error, protocols []string) *tls.Config {
	of := func(h *held) *tls.Config {
		return &tls.Config{
			MinVersion:       tls.VersionTLS13,
			Certificates:     h.pair,
			ClientCAs:        h.pool,
			ClientAuth:       auth,
			VerifyConnection: verify,
			NextProtos:       protocols,
			// A resumed session would carry an identity past the end of what proved it.
			SessionTicketsDisabled: true,
		}
	}
	outer := of(s.current())
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return of(s.current()), nil }
	return outer
}

// Client is TLS, as of now, towards a server whose certificate names the host that is
// dialled, or serverName where that is set. Ask for it anew for each connection.
func (s *Source) Client(serverName string) *tls.Config {
	h := s.current()
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		RootCAs:          h.pool,
		Certificates:     h.pair,
		ServerName:       serverName,
		VerifyConnection: noImpostor,
	}
}

// Peer is TLS, as of now, from one node to another. What is asked of the other is a
// node's certificate, and not one for the address at which it was dialled: addresses
// come from the members' list, and whoever has a node's key is a node anywhere. Ask for
// it anew for each connection.
func (s *Source) Peer(protocols ...string) *tls.Config {
	h := s.current()
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       h.pair,
		NextProtos:         protocols,
		InsecureSkipVerify: true, //nolint:gosec // all but the host's name is verified below
		VerifyConnection: func(c tls.ConnectionState) error {
			if err := verify(h.pool, c.PeerCertificates, x509.ExtKeyUsageServerAuth); err != nil {
				return err
			}
			return nodesOnly(c)
		},
	}
}

// verify does what package tls does, but for the host's name.
func verify(pool *x509.CertPool, chain []*x509.Certificate, use x509.ExtKeyUsage) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}

// nodesOnly refuses a connection whose other end, whose certificate is good, is no node.
func nodesOnly(c tls.ConnectionState) error {
	who, err := Of(c.PeerCertificates[0])
	if err == nil && who.Role != Node {
		err = fmt.Errorf("it shows the certificate of %s", who)
	}
	if err != nil {
		return fmt.Errorf("the other end is not a node: %w", err)
	}
	return nil
}

// noImpostor refuses a server whose certificate says that it is not a node. One that
// does not say what it is has only its host's name to show.
func noImpostor(c tls.ConnectionState) error {
	who, err := Of(c.PeerCertificates[0])
	if err == nil && who.Role != Node {
		return fmt.Errorf("the server is not a node: it shows the certificate of %s", who)
	}
	return nil
}

// Network is how nodes reach each other's Raft ports: by mutual TLS, with certificates
// of nodes. It has the methods of cluster.Network.
type Network struct{ Source *Source }

// Listen listens on TCP. The handshake is made at a connection's first use.
func (n Network) Listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, n.Source.ServerForNodes()), nil
}

// Dial connects, and has made the handshake when it returns.
func (n Network) Dial(ctx context.Context, address string) (net.Conn, error) {
	d := tls.Dialer{Config: n.Source.Peer()}
	conn, err := d.DialContext(ctx, "tcp", address)
	return conn, Explain(err)
}

// Explain says in words what it means that the other end does not speak TLS.
func Explain(err error) error {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("the other end does not speak TLS: %w", err)
	}
	return err
}
