package certs_test

// What is proven here: a certificate says who its holder is in one way only; what a
// Source has read stays in use until something better lies there; and a connection is
// made where it should be, and nowhere else.

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/transport/certs"
)

// authority issues into a directory.
type authority struct {
	certs.Pair
	dir string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	pair, err := certs.NewAuthority("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{Pair: pair, dir: t.TempDir()}
	if err := pair.Write(a.path("ca.pem"), a.path("ca.key")); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// issue writes a certificate over what lies there.
func (a *authority) issue(t *testing.T, who string) certs.Files {
	t.Helper()
	id, err := certs.Parse(who)
	if err != nil {
		t.Fatal(err)
	}
	request := certs.Request{Identity: id, Lifetime: time.Minute}
	if id.Role == certs.Node || id.Role == certs.Participant {
		request.Hosts = []string{"127.0.0.1", "localhost"}
	}
	pair, err := certs.Issue(a.Pair, request)
	if err != nil {
		t.Fatal(err)
	}
	file := strings.ReplaceAll(who, "/", "-")
	files := certs.Files{CA: a.path("ca.pem"), Certificate: a.path(file + ".pem"), Key: a.path(file + ".key")}
	put(t, files.Certificate, pair.Certificate)
	put(t, files.Key, pair.Key)
	return files
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func node(t *testing.T, a *authority, name string) *certs.Source {
	t.Helper()
	s, err := certs.OpenNode(a.issue(t, "node/"+name), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIdentityOfACertificate(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, tt := range []struct {
		uris []string
		want string // empty: none
	}{
		{[]string{"decree:///client/web"}, "client/web"},
		{[]string{"spiffe://corp/web", "decree:///node/n1"}, "node/n1"},
		{nil, ""},
		{[]string{"https://example.com/client/web"}, ""},
		{[]string{"decree:///client/web", "decree:///operator/web"}, ""}, // which of them?
		{[]string{"decree:///client/web", "DECREE:///operator/web"}, ""},
		{[]string{"decree://host/client/web"}, ""},
		{[]string{"decree:///client/web?x=1"}, ""},
		{[]string{"decree:///client/web#x"}, ""},
		{[]string{"decree:///client/we%62"}, ""}, // another way to write it
		{[]string{"decree:///client/"}, ""},
		{[]string{"decree:///root/web"}, ""},
		{[]string{"decree:///client/../node/n1"}, ""},
		{[]string{"decree:client/web"}, ""},
		{[]string{"decree:///client/web%0a"}, ""},
	} {
		c := &x509.Certificate{}
		for _, u := range tt.uris {
			c.URIs = append(c.URIs, uri(u))
		}
		got, err := certs.Of(c)
		if got.String() != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, certs.ErrNoIdentity) {
			t.Errorf("%q: %q, %v; want %q", tt.uris, got, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"client/web", "node/n1", "", "/", "client/", "client/a/b", "operator/\n", "reader/é"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		i, err := certs.Parse(s)
		if err != nil {
			return
		}
		if i.String() != s {
			t.Fatalf("%q is read as %q", s, i)
		}
		again, err := certs.Of(&x509.Certificate{URIs: []*url.URL{i.URI()}})
		if err != nil || again != i {
			t.Fatalf("%q does not come back from its URI: %q, %v", s, again, err)
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("%q is an identity", s)
		}
	})
}

// TestWhatWasReadStays is a rotation file by file, and by a broken hand.
func TestWhatWasReadStays(t *testing.T) {
	a := newAuthority(t)
	files := a.issue(t, "node/n1")
	var log bytes.Buffer
	s, err := certs.OpenNode(files, hclog.New(&hclog.LoggerOptions{Output: &log}))
	if err != nil {
		t.Fatal(err)
	}
	serial := func() string { return s.Client("").Certificates[0].Leaf.SerialNumber.String() }
	first := serial()

	old, err := certs.Read(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	a.issue(t, "node/n1")
	replaced, err := certs.Read(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, files.Key, old.Key) // the certificate is there, its key not yet
	for range 3 {
		if err := s.Reload(); err == nil || !strings.Contains(err.Error(), files.Key) {
			t.Errorf("a certificate without its key: %v", err)
		}
	}
	if serial() != first {
		t.Error("a pair that does not fit is in use")
	}
	if n := strings.Count(log.String(), "private key does not match"); n != 1 {
		t.Errorf("one failure is logged %d times:\n%s", n, &log)
	}
	put(t, files.Key, replaced.Key)
	if err := s.Reload(); err != nil || serial() == first {
		t.Errorf("the new pair is not in use: %v", err)
	}
	second := serial()
	for name, content := range map[string][]byte{
		"nothing":                 nil,
		"no certificate":          []byte("hello"),
		"an authority in its way": a.Pair.Certificate,
	} {
		put(t, files.Certificate, content)
		if s.Reload() == nil || serial() != second {
			t.Errorf("%s is in use", name)
		}
	}
	put(t, files.Certificate, replaced.Certificate)
	put(t, files.CA, append(bytes.Clone(a.Pair.Certificate), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...))
	if s.Reload() == nil {
		t.Error("a bundle with a damaged authority is in use")
	}
	put(t, files.CA, newAuthority(t).Certificate)
	if err := s.Reload(); err == nil {
		t.Error("a bundle without the authority of the node's own certificate is in use")
	}
	put(t, files.CA, a.Pair.Certificate)
	if err := s.Reload(); err != nil {
		t.Error(err)
	}
	text := log.String()
	if !strings.Contains(text, "can be read again") || !strings.Contains(text, "read anew") {
		t.Errorf("the end of a failure is not logged:\n%s", text)
	}
	if block, _ := pem.Decode(replaced.Key); strings.Contains(text, string(pem.EncodeToMemory(block))) || strings.Contains(text, "PRIVATE") {
		t.Error("a key is in the log")
	}
}

// TestOpenedBetweenTwoFiles starts in the middle of a rotation, and with a pair that never
// fits.
func TestOpenedBetweenTwoFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		files := a.issue(t, "node/n1")
		old, err := certs.Read(files.Certificate, files.Key)
		if err != nil {
			t.Fatal(err)
		}
		a.issue(t, "node/n1")
		replaced, err := certs.Read(files.Certificate, files.Key)
		if err != nil {
			t.Fatal(err)
		}
		put(t, files.Key, old.Key)
		if _, err := certs.OpenNode(files, nil); err == nil || !strings.Contains(err.Error(), files.Key) {
			t.Errorf("a pair that never fits: %v", err)
		}
		go func() {
			time.Sleep(100 * time.Millisecond)
			put(t, files.Key, replaced.Key)
		}()
		if _, err := certs.OpenNode(files, nil); err != nil {
			t.Errorf("a pair whose key comes a moment later: %v", err)
		}
	})
}

func TestNodesNeedNodesCertificates(t *testing.T) {
	a := newAuthority(t)
	for who, want := range map[string]string{"client/web": "and not of a node", "node/n1": ""} {
		_, err := certs.OpenNode(a.issue(t, who), nil)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", who, err)
		}
	}
	strange := newAuthority(t).issue(t, "node/n1")
	strange.CA = a.path("ca.pem")
	if _, err := certs.OpenNode(strange, nil); err == nil {
		t.Error("a certificate that no authority of the bundle has signed is taken")
	}
}

// TestRaftIsForNodes: nobody but a node gets through, at either end.
func TestRaftIsForNodes(t *testing.T) {
	a := newAuthority(t)
	server := node(t, a, "n1")
	l, err := certs.Network{Source: server}.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	echo := func(conn net.Conn, err error) error {
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write([]byte("RRRRRRRR")); err != nil {
			return err
		}
		_, err = io.ReadFull(conn, make([]byte, 8))
		return err
	}
	dial := func(cfg *tls.Config) error {
		conn, err := tls.Dial("tcp", l.Addr().String(), cfg)
		if err != nil {
			return err
		}
		return echo(conn, nil)
	}
	if err := echo(certs.Network{Source: node(t, a, "n2")}.Dial(t.Context(), l.Addr().String())); err != nil {
		t.Errorf("a node is refused: %v", err)
	}
	client, err := certs.Open(a.issue(t, "client/web"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if dial(client.Client("127.0.0.1")) == nil {
		t.Error("a client's certificate speaks Raft")
	}
	if dial(client.Peer()) == nil {
		t.Error("a client's certificate speaks Raft")
	}
	if dial(node(t, newAuthority(t), "n1").Peer()) == nil {
		t.Error("another authority's node speaks Raft")
	}
	nobody := client.Client("127.0.0.1")
	nobody.Certificates = nil
	if dial(nobody) == nil {
		t.Error("nobody speaks Raft")
	}
	low := node(t, a, "n3").Peer()
	low.MinVersion, low.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if dial(low) == nil {
		t.Error("TLS 1.2 is spoken")
	}
	if err := echo(net.Dial("tcp", l.Addr().String())); err == nil {
		t.Error("plain text is spoken")
	}

	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go func() {
		conn, err := plain.Accept()
		if err == nil {
			conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			conn.Close()
		}
	}()
	_, err = certs.Network{Source: server}.Dial(t.Context(), plain.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("towards plain text: %v", err)
	}
}

// TestPeersVerifyEachOther: a node that dials is not taken in by a client that listens.
func TestPeersVerifyEachOther(t *testing.T) {
	a := newAuthority(t)
	participant, err := certs.Open(a.issue(t, "participant/bank"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", participant.Server())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := (certs.Network{Source: node(t, a, "n1")}).Dial(ctx, l.Addr().String()); err == nil || !strings.Contains(err.Error(), "not a node") {
		t.Errorf("a participant stands in for a node: %v", err)
	}
	client, err := certs.Open(a.issue(t, "client/web"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.Dial("tcp", l.Addr().String(), client.Client("127.0.0.1")); err == nil || !strings.Contains(err.Error(), "not a node") {
		t.Errorf("a participant stands in for a node towards a client: %v", err)
	}
}

func TestIssue(t *testing.T) {
	a := newAuthority(t)
	for name, r := range map[string]certs.Request{
		"a role that is none":       {Identity: certs.Identity{Role: "root", Name: "x"}, Lifetime: time.Minute},
		"a name that is none":       {Identity: certs.Identity{Role: certs.Client, Name: "a/b"}, Lifetime: time.Minute},
		"a client with a host":      {Identity: certs.Identity{Role: certs.Client, Name: "web"}, Hosts: []string{"x"}, Lifetime: time.Minute},
		"longer than the authority": {Identity: certs.Identity{Role: certs.Client, Name: "web"}, Lifetime: 2 * time.Hour},
	} {
		if _, err := certs.Issue(a.Pair, r); err == nil {
			t.Errorf("%s is issued", name)
		}
	}
	files := a.issue(t, "client/web")
	pair, err := certs.Read(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certs.Issue(pair, certs.Request{Identity: certs.Identity{Role: certs.Node, Name: "n9"}, Lifetime: time.Second}); err == nil {
		t.Error("a client issues certificates")
	}
	if err := pair.Write(files.Certificate, a.path("new.key")); !errors.Is(err, os.ErrExist) {
		t.Errorf("a certificate is overwritten: %v", err)
	}
	if _, err := os.Stat(a.path("new.key")); err == nil {
		t.Error("half a pair is left")
	}
	if err := pair.Write(a.path("new.pem"), files.Key); !errors.Is(err, os.ErrExist) {
		t.Errorf("a key is overwritten: %v", err)
	}
	if info, err := os.Stat(a.path("ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
}

func TestExpiry(t *testing.T) {
	a := newAuthority(t)
	all := node(t, a, "n1").Expiry()
	if len(all) != 2 || all[0].Use != "certificate" || all[1].Use != "ca" || time.Until(all[0].Until) > time.Minute || time.Until(all[1].Until) < 50*time.Minute {
		t.Errorf("%+v", all)
	}
}
