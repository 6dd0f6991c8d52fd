package grpcparticipant_test

// These tests prove that a node speaks to the service whose certificate its authority
// has signed, shows its own, follows both while they are replaced, and tells no secret.

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	"github.com/decree-tx/decree/participants/participanttest"
)

// signer is an authority.
type signer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func encoded(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	s := &signer{}
	s.certificate, s.key = (*signer)(nil).sign(t, "authority")
	return s
}

// sign makes a certificate for both ends of a connection; by itself where s is nil.
func (s *signer) sign(t *testing.T, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, parentKey := template, key
	if s == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		parent, parentKey = s.certificate, s.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

// write puts a pair into two files.
func (s *signer) write(t *testing.T, dir, name string) {
	t.Helper()
	c, key := s.sign(t, name)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{
		name + ".pem": encoded("CERTIFICATE", c.Raw), name + ".key": encoded("PRIVATE KEY", der),
		"ca.pem": encoded("CERTIFICATE", s.certificate.Raw),
	} {
		if err := os.WriteFile(filepath.Join(dir, path), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serve serves a fake that only takes certificates of an authority.
func serveSecured(t *testing.T, s *signer, address string) (string, func()) {
	t.Helper()
	c, key := s.sign(t, "service")
	pool := x509.NewCertPool()
	pool.AddCert(s.certificate)
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{c.Raw}, PrivateKey: key}},
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	fake := participanttest.NewFake()
	done := make(chan error, 1)
	go func() { done <- grpcparticipant.Serve(ctx, l, fake, grpc.Creds(credentials.NewTLS(cfg))) }()
	return l.Addr().String(), func() {
		cancel()
		<-done
		fake.Close()
	}
}

func TestConnectionsAreMutuallyAuthenticated(t *testing.T) {
	dir := t.TempDir()
	first, second := newSigner(t), newSigner(t)
	first.write(t, dir, "node")
	address, stop := serveSecured(t, first, "127.0.0.1:0")
	config := func(fields map[string]any) []byte {
		fields["target"] = address
		b, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	file := func(name string) string { return "file:" + filepath.Join(dir, name) }
	all := map[string]any{"ca": file("ca.pem"), "certificate": file("node.pem"), "key": file("node.key")}
	var log bytes.Buffer
	var mu sync.Mutex // guards log
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &log, Mutex: &mu})
	open := func(fields map[string]any) participants.Participant {
		t.Helper()
		p, err := grpcparticipant.Driver{}.Open(t.Context(), participants.Registration{Name: "a", Driver: "grpc", Config: config(fields)}, logger)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	// reaches asks until the service has answered, or the connection has failed often enough.
	reaches := func(p participants.Participant) (err error) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err = p.Recover(ctx, "c")
			cancel()
			if err == nil || strings.Contains(err.Error(), "tls: ") && !strings.Contains(err.Error(), "EOF") {
				return err
			}
		}
		return err
	}
	secured := open(all)
	if err := reaches(secured); err != nil {
		t.Fatal(err)
	}
	if err := reaches(open(map[string]any{"ca": file("ca.pem")})); err == nil {
		t.Error("a node without a certificate is served")
	}
	// Everything is replaced, and the service with it: the open participant follows.
	stop()
	second.write(t, dir, "node")
	address2, stop := serveSecured(t, second, address)
	defer stop()
	if address2 != address {
		t.Fatal(address2)
	}
	deadline := time.Now().Add(30 * time.Second)
	for err := error(nil); ; time.Sleep(50 * time.Millisecond) {
		if _, err = secured.Recover(t.Context(), "c"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a rotation: %v", err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(log.String(), "PRIVATE") {
		t.Error("a key is in the log")
	}
}

func TestConfigOfCertificates(t *testing.T) {
	for name, tt := range map[string]struct{ config, want string }{
		"all":                      {`{"target":"db:1","ca":"file:/a","certificate":"file:/b","key":"file:/c"}`, ""},
		"loopback by an authority": {`{"target":"127.0.0.1:1","ca":"file:/a"}`, ""},
		"half a pair":              {`{"target":"db:1","certificate":"file:/b"}`, "want both or neither"},
		"a secret":                 {`{"target":"db:1","ca":"-----BEGIN"}`, "want a reference"},
		"plain text":               {`{"target":"db:1","insecure":true,"ca":"file:/a"}`, "ca: has no meaning on a plain-text connection"},
	} {
		err := grpcparticipant.Driver{}.Check([]byte(tt.config))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
