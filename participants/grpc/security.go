package grpcparticipant

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/credentials"

	"github.com/decree-tx/decree/participants"
)

// security are the credentials of a participant's connections. What its registration
// refers to is read for each of them, so that certificates are replaced under traffic;
// where it can't be read, or does not fit together, what was read last is used on, since
// a rotation replaces several files one after the other.
type security struct {
	// set once
	cfg Config
	log hclog.Logger

	mu       sync.Mutex
	last     *tls.Config // nil until it was read once; guarded by mu
	complain string      // the last failure, "" if there was none; guarded by mu
}

// ClientHandshake implements credentials.TransportCredentials.
func (s *security) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg, err := s.present()
	if err != nil {
		return nil, nil, err
	}
	secured, info, err := credentials.NewTLS(cfg).ClientHandshake(ctx, authority, conn)
	if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
		err = fmt.Errorf("the service does not speak TLS: %w", err)
	}
	return secured, info, err
}

func (s *security) present() (*tls.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg, err := s.cfg.tls()
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == s.complain:
	case err != nil && s.last != nil:
		s.log.Warn("credentials cannot be read again: the ones read before stay in use", "error", err)
	case err == nil:
		s.log.Info("credentials can be read again")
	}
	s.complain = text
	if err == nil {
		s.last = cfg
	} else if s.last == nil {
		return nil, err
	}
	return s.last.Clone(), nil
}

// tls is how connections are secured: TLS 1.3 and nothing below. Its errors name
// references and never what they refer to.
func (c Config) tls() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.CA != "" {
		ca, err := c.CA.Resolve()
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, fmt.Errorf("ca: %s holds no PEM certificate", c.CA)
		}
	}
	if c.Certificate == "" {
		return out, nil
	}
	certificate, errCertificate := c.Certificate.Resolve()
	key, errKey := c.Key.Resolve()
	if err := errors.Join(errCertificate, errKey); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		return nil, fmt.Errorf("certificate %s and key %s: %w", c.Certificate, c.Key, err)
	}
	out.Certificates = []tls.Certificate{pair}
	return out, nil
}

// validateSecurity reports what is wrong with the references.
func (c Config) validateSecurity() (problems []error) {
	for name, r := range map[string]participants.Reference{"ca": c.CA, "certificate": c.Certificate, "key": c.Key} {
		if r == "" {
			continue
		}
		if err := r.Validate(); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
		if c.insecure() {
			problems = append(problems, fmt.Errorf("%s: has no meaning on a plain-text connection", name))
		}
	}
	if (c.Certificate == "") != (c.Key == "") {
		problems = append(problems, errors.New("certificate and key: want both or neither"))
	}
	return problems
}

func (s *security) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a client's")
}

func (s *security) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (s *security) Clone() credentials.TransportCredentials { return s }

func (s *security) OverrideServerName(string) error {
	return errors.New("want the name as authority")
}
