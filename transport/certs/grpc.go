package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// DialGRPC are gRPC credentials for a client's connections, whose files are looked at
// for each of them.
func (s *Source) DialGRPC() credentials.TransportCredentials {
	return fresh{func() *tls.Config { return s.Client("") }}
}

// DialPeerGRPC are those of a node's connections to another.
func (s *Source) DialPeerGRPC() credentials.TransportCredentials {
	return fresh{func() *tls.Config { return s.Peer() }}
}

// fresh makes its configuration anew for each handshake.
type fresh struct{ config func() *tls.Config }

func (f fresh) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := credentials.NewTLS(f.config()).ClientHandshake(ctx, authority, conn)
	return secured, info, Explain(err)
}

func (f fresh) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a client's")
}

func (f fresh) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (f fresh) Clone() credentials.TransportCredentials { return f }

func (f fresh) OverrideServerName(string) error {
	return errors.New("want the name by grpc.WithAuthority")
}
