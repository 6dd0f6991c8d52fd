package httpparticipant_test

// These tests prove that a node speaks to the service that it was told to and to
// no other, that it shows its credentials to that one alone, that both can be
// rotated while it runs, and that no secret is in an error or a log line.

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	httpparticipant "github.com/decree-tx/decree/participants/http"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate for a name and its key, in PEM.
func (a *authority) sign(t *testing.T, name string) (certificate, key []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	private := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// server is a service's side of TLS under a name.
func (a *authority) server(t *testing.T, name string) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(a.sign(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

// pool is what trusts the authority alone.
func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.certificate)
	return p
}

// put writes a file of the node and gives the reference to it.
func put(t *testing.T, path string, content []byte) participants.Reference {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return participants.Reference("file:" + path)
}

// serveTLS runs a service over TLS; what its server grumbles about is what the
// test is about.
func serveTLS(t *testing.T, h http.Handler, security *tls.Config) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = security
	s.Config.ErrorLog = hclog.NewNullLogger().StandardLogger(nil)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

var agree = saysJSON(200, `{"vote": "commit"}`)

// The whole contract holds over TLS with a token.
func TestStoreBehindTLSAndAToken(t *testing.T) {
	ca := newAuthority(t)
	security := ca.server(t, "127.0.0.1")
	conforms(t, func(t *testing.T) (*bank, httpparticipant.Config) {
		dir := t.TempDir()
		token := put(t, filepath.Join(dir, "token"), []byte("hunter2\n"))
		return &bank{
				options: httpparticipant.Options{Tokens: []participants.Reference{token}},
				secure:  func(l net.Listener) net.Listener { return tls.NewListener(l, security) },
			}, httpparticipant.Config{
				URL:   "https://",
				Token: token,
				CA:    put(t, filepath.Join(dir, "ca.pem"), ca.pem),
			}
	})
}

// Who cannot show that it is the service gets no request.
func TestImpostors(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	trusted := put(t, filepath.Join(dir, "ca.pem"), ca.pem)
	old := ca.server(t, "127.0.0.1")
	old.MaxVersion = tls.VersionTLS12
	for name, tc := range map[string]struct {
		security *tls.Config
		config   httpparticipant.Config
		want     string // in the error; "" for none
	}{
		"the service":                     {ca.server(t, "127.0.0.1"), httpparticipant.Config{CA: trusted}, ""},
		"the service under its own name":  {ca.server(t, "orders.internal"), httpparticipant.Config{CA: trusted, ServerName: "orders.internal"}, ""},
		"signed by another authority":     {other.server(t, "127.0.0.1"), httpparticipant.Config{CA: trusted}, "unknown authority"},
		"not signed for the system":       {ca.server(t, "127.0.0.1"), httpparticipant.Config{}, "certificate"},
		"another name":                    {ca.server(t, "127.0.0.2"), httpparticipant.Config{CA: trusted}, "127.0.0.2"},
		"another name than the one given": {ca.server(t, "127.0.0.1"), httpparticipant.Config{CA: trusted, ServerName: "orders.internal"}, "orders.internal"},
		"an older TLS":                    {old, httpparticipant.Config{CA: trusted}, "protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Bool
			tc.config.URL = serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Store(true)
				agree(w, r)
			}), tc.security)
			_, err := open(t, tc.config).Prepare(bounded(t), newBranch(""))
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			mustBeAmbiguous(t, name, err)
			if !strings.Contains(err.Error(), tc.want) || asked.Load() {
				t.Errorf("%v, asked %v; want a word about %q and no request", err, asked.Load(), tc.want)
			}
		})
	}
}

// A service in the clear behind an https url is not spoken to.
func TestNoDowngrade(t *testing.T) {
	url := serve(t, agree)
	_, err := open(t, httpparticipant.Config{URL: "https" + strings.TrimPrefix(url, "http")}).Prepare(bounded(t), newBranch(""))
	mustBeAmbiguous(t, "a service in the clear", err)
}

// The certificate of the node is shown to the service, and both can be replaced,
// one file after the other, while calls go on: between the two nothing breaks.
func TestCertificatesRotate(t *testing.T) {
	first, second := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	certificate, key := filepath.Join(dir, "node.pem"), filepath.Join(dir, "node.key")
	nodeCertificate, nodeKey := first.sign(t, "node 1")
	var log safeBuffer
	config := httpparticipant.Config{
		CA:          put(t, ca, bytes.Join([][]byte{first.pem, second.pem}, nil)),
		Certificate: put(t, certificate, nodeCertificate),
		Key:         put(t, key, nodeKey),
	}
	security := first.server(t, "127.0.0.1")
	security.ClientAuth, security.ClientCAs = tls.RequireAndVerifyClientCert, first.pool()
	security.ClientCAs.AddCert(second.certificate)
	seen := make(chan string, 1)
	config.URL = serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/prepare" {
			seen <- r.TLS.PeerCertificates[0].Subject.CommonName
		}
		agree(w, r)
	}), security)
	p := openLogged(t, config, hclog.New(&hclog.LoggerOptions{Output: &log}))
	shown := func() string {
		t.Helper()
		if _, err := p.Prepare(bounded(t), newBranch("")); err != nil {
			t.Fatal(err)
		}
		return <-seen
	}
	if got := shown(); got != "node 1" {
		t.Fatalf("the service saw the certificate of %q", got)
	}
	nodeCertificate, nodeKey = second.sign(t, "node 2")
	put(t, certificate, nodeCertificate)
	until(t, "half a rotation is noticed", func() bool {
		if got := shown(); got != "node 1" {
			t.Fatalf("the service saw the certificate of %q, whose key is not there", got)
		}
		return strings.Contains(log.String(), "credentials cannot be read again")
	})
	put(t, key, nodeKey)
	until(t, "the new certificate is shown", func() bool { return shown() == "node 2" })
	put(t, ca, second.pem)
	until(t, "the service's authority is no longer trusted", func() bool {
		_, err := p.Prepare(bounded(t), newBranch(""))
		if err == nil {
			<-seen
		}
		return err != nil
	})
}

// A token is read again when it has changed, sent to the service alone, and never
// shown: not in an error, nor in the log.
func TestTokenRotates(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	var log safeBuffer
	var taken atomic.Value
	taken.Store("Bearer hunter2-old")
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != taken.Load() {
			saysJSON(401, `{"error": "unauthenticated", "detail": "no"}`)(w, r)
			return
		}
		agree(w, r)
	}))
	p := openLogged(t, httpparticipant.Config{URL: url, Token: participants.Reference("file:" + file)},
		hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace}))
	prepare := func() error {
		_, err := p.Prepare(bounded(t), newBranch(""))
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Fatalf("the token is in %v", err)
		}
		return err
	}
	if err := prepare(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("without the file: %v; want an error that names it", err)
	}
	put(t, file, []byte("hunter2 with spaces"))
	if err := prepare(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("with what is no token: %v; want an error that names the file", err)
	}
	put(t, file, []byte("hunter2-old\n"))
	if err := prepare(); err != nil {
		t.Errorf("with the token: %v", err)
	}
	taken.Store("Bearer hunter2-new")
	err := prepare()
	mustBeAmbiguous(t, "with the wrong token", err)
	if !strings.Contains(err.Error(), "check the participant's token") {
		t.Errorf("%v; want what to check", err)
	}
	put(t, file, []byte("hunter2-new"))
	until(t, "the new token is sent", func() bool { return prepare() == nil })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	until(t, "the loss of the file is noticed", func() bool {
		if err := prepare(); err != nil {
			t.Fatalf("the token that was read before is no longer sent: %v", err)
		}
		return strings.Contains(log.String(), file)
	})
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the token is in the log: %s", log.String())
	}
}

// Over plain http to another host, which an operator may ask for, a token goes in
// the clear: that is said.
func TestTokenInTheClear(t *testing.T) {
	t.Setenv("DECREE_TEST_TOKEN", "hunter2")
	yes := true
	var log safeBuffer
	openLogged(t, httpparticipant.Config{URL: "http://service.invalid", Insecure: &yes, Token: "env:DECREE_TEST_TOKEN"},
		hclog.New(&hclog.LoggerOptions{Output: &log}))
	if !strings.Contains(log.String(), "in the clear") || strings.Contains(log.String(), "hunter2") {
		t.Errorf("log %q; want a warning without the token", log.String())
	}
}

// safeBuffer is a log that is written and read at once.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

var _ io.Writer = (*safeBuffer)(nil)

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
