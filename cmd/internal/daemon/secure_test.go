package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cmd/internal/config"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/sim"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/certs"
	"github.com/decree-tx/decree/transport/client"
)

// These tests prove, over three whole nodes with TLS on every connection: that certificates
// and the authority are replaced under load without one failed transaction, that Raft is
// for nodes, that a client sees and ends what it began and nothing else, and that no log
// tells what a branch carries or what proves somebody's identity.

// fortress is a cluster with an authority, in one directory.
type fortress struct {
	t       *testing.T
	dir     string
	bundle  []certs.Pair // the authorities that are trusted; the last one issues
	members []*member
	log     safeBuffer
}

// safeBuffer is a log of many writers.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newFortress(t *testing.T) *fortress {
	t.Helper()
	f := &fortress{t: t, dir: t.TempDir()}
	f.addAuthority()
	var peers config.Peers
	for i, addr := range freeAddresses(t, 3) {
		peers = append(peers, config.Peer{ID: fmt.Sprintf("n%d", i+1), Addr: addr})
	}
	drivers := participants.Drivers{"sim": &sim.Driver{}}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &f.log})
	daemons := make([]*Daemon, len(peers))
	var opening sync.WaitGroup
	for i, peer := range peers {
		files := f.files("node/" + peer.ID)
		cfg := config.Default()
		cfg.NodeID, cfg.DataDir, cfg.Peers = peer.ID, filepath.Join(f.dir, peer.ID), peers
		cfg.RaftAddr, cfg.GRPCAddr, cfg.HTTPAddr = peer.Addr, "127.0.0.1:0", ""
		cfg.TLSCA, cfg.TLSCert, cfg.TLSKey = files.CA, files.Certificate, files.Key
		f.members = append(f.members, &member{id: peer.ID, cfg: cfg, ended: make(chan error, 1)})
		opening.Go(func() {
			var err error
			daemons[i], err = Open(t.Context(), cfg, Options{Drivers: drivers, Logger: logger, Version: "test", Exit: func(err error) { panic(err) }})
			if err != nil {
				t.Errorf("open %s: %v", peer.ID, err)
			}
		})
	}
	opening.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i, d := range daemons {
		ctx, stop := context.WithCancel(context.Background())
		m := f.members[i]
		m.daemon, m.stop, m.cfg.GRPCAddr = d, stop, d.GRPC.String()
		go func() { m.ended <- d.Run(ctx) }()
		t.Cleanup(func() {
			if err := m.end(t); err != nil {
				t.Errorf("%s: %v", m.id, err)
			}
		})
	}
	return f
}

func (f *fortress) path(name string) string { return filepath.Join(f.dir, name) }

// addAuthority makes a new one, which issues from now on; the old ones are still trusted.
func (f *fortress) addAuthority() {
	f.t.Helper()
	pair, err := certs.NewAuthority(fmt.Sprintf("authority %d", len(f.bundle)+1), time.Hour)
	if err != nil {
		f.t.Fatal(err)
	}
	f.bundle = append(f.bundle, pair)
	f.trust(f.bundle)
}

// trust writes the bundle that everybody reads.
func (f *fortress) trust(bundle []certs.Pair) {
	f.t.Helper()
	var all []byte
	for _, pair := range bundle {
		all = append(all, pair.Certificate...)
	}
	f.put("ca.pem", all)
}

// put replaces a file at once, as those who rotate certificates should.
func (f *fortress) put(name string, content []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name+".new"), content, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(f.path(name+".new"), f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

// files has a certificate issued anew.
func (f *fortress) files(who string) certs.Files {
	f.t.Helper()
	id, err := certs.Parse(who)
	if err != nil {
		f.t.Fatal(err)
	}
	r := certs.Request{Identity: id, Lifetime: 10 * time.Minute}
	if id.Role == certs.Node {
		r.Hosts = []string{"127.0.0.1"}
	}
	pair, err := certs.Issue(f.bundle[len(f.bundle)-1], r)
	if err != nil {
		f.t.Fatal(err)
	}
	name := strings.ReplaceAll(who, "/", "-")
	f.put(name+".pem", pair.Certificate)
	f.put(name+".key", pair.Key)
	return certs.Files{CA: f.path("ca.pem"), Certificate: f.path(name + ".pem"), Key: f.path(name + ".key")}
}

// reload is SIGHUP at all nodes.
func (f *fortress) reload() {
	for _, m := range f.members {
		m.daemon.Reload()
	}
}

// client is an SDK client of somebody's.
func (f *fortress) client(who string) *client.Client {
	f.t.Helper()
	files := f.files(who)
	var cfg client.Config
	for _, m := range f.members {
		cfg.Endpoints = append(cfg.Endpoints, m.cfg.GRPCAddr)
	}
	cfg.Security = client.Security{CA: files.CA, Certificate: files.Certificate, Key: files.Key}
	c, err := client.New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

func (f *fortress) register(ctx context.Context, names ...string) *client.Client {
	f.t.Helper()
	ada := f.client("operator/ada")
	for _, name := range names {
		if _, err := ada.PutParticipant(ctx, &decreev1.Participant{Name: name, Driver: "sim"}); err != nil {
			f.t.Fatal(err)
		}
	}
	return ada
}

func TestCertificatesAreReplacedUnderLoad(t *testing.T) {
	f := newFortress(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	ada := f.register(ctx, "a", "b")
	web := f.client("client/web")
	var done, failed atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := web.Submit(ctx, client.Transaction{Branches: []client.Branch{client.JSON("a", 1), client.JSON("b", 2)}})
				if err != nil || r.Outcome != client.Committed {
					failed.Add(1)
					t.Errorf("%+v, %v", r, err)
					return
				}
				done.Add(1)
			}
		})
	}
	goOn := func() { // some transactions with what is in use now
		t.Helper()
		for until := done.Load() + 20; done.Load() < until && failed.Load() == 0; {
			time.Sleep(time.Millisecond)
		}
	}
	newLeader := func() { // so that connections are made anew, Raft's as well
		t.Helper()
		if err := ada.TransferLeadership(ctx, ""); err != nil {
			t.Errorf("transfer: %v", err)
		}
		goOn()
	}
	everybody := []string{"node/n1", "node/n2", "node/n3", "client/web", "operator/ada"}
	goOn()
	for _, who := range everybody { // the authority stays
		f.files(who)
	}
	f.reload()
	newLeader()
	old := f.bundle[0]
	f.addAuthority() // both are trusted,
	f.reload()
	goOn()
	for _, who := range everybody { // then all have certificates of the new one,
		f.files(who)
	}
	f.reload()
	newLeader()
	f.trust(f.bundle[1:]) // and then the old one goes
	f.reload()
	newLeader()
	for _, m := range f.members { // a whole stop and a change of who leads, on the new one alone
		for _, e := range m.daemon.Certificates().Expiry() {
			if strings.Contains(e.Subject, "authority 1") {
				t.Errorf("%s still trusts the old authority", m.id)
			}
		}
	}
	close(stop)
	load.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d transactions failed", failed.Load(), done.Load())
	}
	// What the old authority signs is worth nothing now.
	f.bundle = []certs.Pair{old}
	late := f.files("operator/late")
	source, err := certs.Open(late, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := source.Client("127.0.0.1")
	cfg.NextProtos = []string{"h2"}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // though nobody asks for it
		return &cfg.Certificates[0], nil
	}
	if err := handshake(f.members[0].cfg.GRPCAddr, cfg); err == nil {
		t.Error("a certificate of the authority that went is taken")
	}
}

// handshake connects and waits for the server's word.
func handshake(address string, cfg *tls.Config) error {
	conn, err := tls.Dial("tcp", address, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestRaftIsForNodes(t *testing.T) {
	f := newFortress(t)
	for _, who := range []string{"client/web", "operator/ada", "reader/eve", "participant/a"} {
		source, err := certs.Open(f.files(who), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, cfg := range []*tls.Config{source.Client("127.0.0.1"), source.Peer()} {
			if err := handshake(f.members[0].cfg.RaftAddr, cfg); err == nil || !strings.Contains(err.Error(), "tls: ") {
				t.Errorf("%s speaks Raft: %v", who, err)
			}
		}
	}
}

// TestAClientSeesAndEndsWhatItBegan, and nothing of another's, at every node.
func TestAClientSeesAndEndsWhatItBegan(t *testing.T) {
	f := newFortress(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	ada := f.register(ctx, "a", "b")
	web, shop, eve := f.client("client/web"), f.client("client/shop"), f.client("reader/eve")
	a, b := f.client("participant/a"), f.client("participant/b")

	txid, err := client.NewTxID()
	if err != nil {
		t.Fatal(err)
	}
	content := client.Transaction{TxID: txid, Branches: []client.Branch{client.JSON("a", 1)}}
	if r, err := web.Submit(ctx, content); err != nil || r.Outcome != client.Committed {
		t.Fatal(r, err)
	}
	open, err := web.Begin(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open.Enlist(ctx, client.JSON("a", 2)); err != nil {
		t.Fatal(err)
	}
	ids := []string{txid, open.ID}
	inAll := func(c *client.Client) (n int) {
		for tx, err := range c.List(ctx, client.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if tx.GetTxid() == id {
					n++
				}
			}
		}
		return n
	}
	for _, id := range ids {
		for name, c := range map[string]*client.Client{"its owner": web, "an operator": ada, "a reader": eve} {
			if _, err := c.Get(ctx, id); err != nil {
				t.Errorf("%s does not see %s: %v", name, id, err)
			}
		}
		never, _ := client.NewTxID()
		_, unknown := shop.Get(ctx, never)
		_, foreign := shop.Get(ctx, id)
		if !errors.Is(foreign, client.ErrNotFound) || strings.ReplaceAll(foreign.Error(), id, never) != unknown.Error() {
			t.Errorf("another's: %v; one that never was: %v", foreign, unknown)
		}
		theirs := shop.Resume(id)
		if _, err := theirs.Enlist(ctx, client.JSON("b", 1)); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("enlisting to another's: %v", err)
		}
		if r, err := theirs.Commit(ctx); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("committing another's: %+v, %v", r, err)
		}
		if r, err := theirs.Abort(ctx, "mine"); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("aborting another's: %+v, %v", r, err)
		}
		if r, err := shop.Inquire(ctx, id); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("inquiring about another's: %+v, %v", r, err)
		}
		if _, err := a.Inquire(ctx, id); err != nil {
			t.Errorf("a participant may not ask about its branch: %v", err)
		}
		if r, err := b.Inquire(ctx, id); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("a participant asks about a transaction without a branch of its own: %+v, %v", r, err)
		}
		looking, enough := context.WithTimeout(ctx, 300*time.Millisecond)
		for tx, err := range shop.Watch(looking, id) {
			if err == nil {
				t.Errorf("watching another's: %s", tx)
			}
		}
		enough()
	}
	if r, err := shop.Submit(ctx, content); !errors.Is(err, client.ErrReused) {
		t.Errorf("submitting another's again: %+v, %v", r, err)
	}
	if _, err := shop.BeginAs(ctx, open.ID, time.Minute); !errors.Is(err, client.ErrReused) {
		t.Errorf("beginning another's again: %v", err)
	}
	if r, err := web.Submit(ctx, content); err != nil || r.Outcome != client.Committed {
		t.Errorf("submitting one's own again: %+v, %v", r, err)
	}
	for name, tt := range map[string]struct {
		c    *client.Client
		want int
	}{"its owner": {web, 2}, "another": {shop, 0}, "an operator": {ada, 2}, "a reader": {eve, 2}} {
		if n := inAll(tt.c); n != tt.want {
			t.Errorf("%s lists %d of 2, want %d", name, n, tt.want)
		}
	}
	if r, err := ada.Resume(open.ID).Abort(ctx, "by hand"); err != nil || r.Outcome != client.Aborted {
		t.Errorf("an operator's abort: %+v, %v", r, err)
	}
	if r, err := open.Commit(ctx); !errors.Is(err, client.ErrAborted) {
		t.Errorf("its owner after that: %+v, %v", r, err)
	}
}

// TestLogsTellNoSecrets, at the level that says most.
func TestLogsTellNoSecrets(t *testing.T) {
	f := newFortress(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f.register(ctx, "a", "b")
	web := f.client("client/web")
	const secret = "the-payload-of-a-branch"
	if r, err := web.Submit(ctx, client.Transaction{Branches: []client.Branch{client.JSON("a", secret), client.Bytes("b", []byte(secret))}}); err != nil || r.Outcome != client.Committed {
		t.Fatal(r, err)
	}
	tx, err := web.Begin(ctx, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Enlist(ctx, client.JSON("a", secret)); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Abort(ctx, "no"); err != nil {
		t.Fatal(err)
	}
	text := f.log.String()
	for _, never := range []string{secret, "PRIVATE KEY"} {
		if strings.Contains(text, never) {
			t.Errorf("%q is in the log", never)
		}
	}
	if !strings.Contains(text, "node serves") {
		t.Error("there is no log to look at")
	}
}
