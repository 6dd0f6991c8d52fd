package httpparticipant

// What is proven here: connections outlive a look at the credentials that finds
// them as they were, and a new token; they do not outlive a new certificate.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
)

func TestConnectionsLastAsLongAsTheirCredentials(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) participants.Reference {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return participants.Reference("file:" + path)
	}
	p := newPool(Config{
		URL:   "https://orders.internal",
		Token: write("token", []byte("first")),
		CA:    write("ca", selfSigned(t)),
	}, hclog.NewNullLogger())
	defer p.close()
	before, token, err := p.route(opPrepare)
	if err != nil || token != "first" {
		t.Fatalf("token %q, %v", token, err)
	}
	if other, _, err := p.route(opCommit); err != nil || other == before {
		t.Errorf("commits share the connections of prepares, %v", err)
	}
	look := func() { p.reread = time.Time{} } // as if the pause were over
	write("token", []byte("second"))
	if same, token, err := p.route(opPrepare); err != nil || same != before || token != "first" {
		t.Errorf("within the pause: token %q, %v; want the one that was read", token, err)
	}
	look()
	if same, token, err := p.route(opPrepare); err != nil || same != before || token != "second" {
		t.Errorf("token %q, other connections %v, %v; want the second token on the same ones", token, same != before, err)
	}
	look()
	if same, _, err := p.route(opPrepare); err != nil || same != before {
		t.Errorf("other connections %v, %v; want the same where nothing has changed", same != before, err)
	}
	write("ca", selfSigned(t))
	look()
	after, _, err := p.route(opPrepare)
	if err != nil || after == before {
		t.Errorf("the connections to a service that is no longer trusted are used on, %v", err)
	}
	write("ca", []byte("half a fi"))
	look()
	if same, _, err := p.route(opPrepare); err != nil || same != after {
		t.Errorf("other connections %v, %v; want the same while the file is being written", same != after, err)
	}
}

func selfSigned(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
