package main

// What is proven here: over three nodes and two services that know each other by
// certificates which live for seconds, money moves for longer than any of them lives,
// while leaders are killed, and no transaction fails for it, none is lost and none is
// flipped (R1, R5). What SECURITY.md says of what outlives its certificate is so.

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/cmd/internal/papers"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/certs"
	"github.com/decree-tx/decree/transport/client"
)

// shortLife leaves two seconds to a machine that is busy: a pair is replaced at half of
// it, in use two seconds later, and ends with a whole second.
const shortLife = 10 * time.Second

// keep is a cluster whose certificates expire.
type keep struct {
	t       *testing.T
	fleet   *fleet.Fleet
	papers  *papers.Papers
	nodes   fleet.Cluster
	admin   *client.Client
	offices map[string]bank.Office
	tellers *client.Client
}

var keepBanks = []string{"bank-a", "bank-b"}

func newKeep(t *testing.T) *keep {
	t.Helper()
	k := &keep{t: t, offices: map[string]bank.Office{}}
	var err error
	k.fleet, err = fleet.New(fleet.Config{Binary: build(t, ""), Dir: t.TempDir()})
	k.must(err)
	t.Cleanup(func() { k.must(k.fleet.Close()) })
	k.papers, err = papers.New(papers.Config{
		Dir: filepath.Join(k.fleet.Dir(), "certs"), Life: shortLife, Nodes: fleet.NodeIDs(fleet.Nodes), Services: keepBanks,
	})
	k.must(err)
	t.Cleanup(func() { k.must(k.papers.Close()) })
	port, err := fleet.FreePort(0)
	k.must(err)
	k.nodes, err = k.fleet.StartClusterWith(port, fleet.Options{Env: k.papers.Node})
	k.must(err)
	k.admin = k.dial(k.papers.Operator())
	k.tellers = k.dial(k.papers.Client())
	for i, name := range keepBanks {
		k.openBank(name, port.Service(i+1))
	}
	return k
}

func (k *keep) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatalf("%v\n%s", err, k.fleet.Logs())
	}
}

func (k *keep) dial(as client.Security) *client.Client {
	k.t.Helper()
	c, err := client.New(client.Config{Endpoints: k.nodes.Endpoints(), Security: as})
	k.must(err)
	k.t.Cleanup(func() { c.Close() })
	return c
}

func (k *keep) openBank(name, address string) {
	k.t.Helper()
	path := filepath.Join(k.fleet.Dir(), name+".db")
	_, err := k.fleet.Start(name, append([]string{"participant", "kv", "--listen", address, "--path", path}, k.papers.Service(name)...)...)
	k.must(err)
	k.offices[name], err = bank.NewKV(bank.Service{Name: name, Address: address, Path: path, Papers: k.papers})
	k.must(err)
	k.t.Cleanup(func() { k.offices[name].Close() })
	k.within(func(ctx context.Context) {
		_, err := k.admin.PutParticipant(ctx, k.offices[name].Participant())
		k.must(err)
	})
	k.reached(name)
}

func (k *keep) within(do func(ctx context.Context)) {
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	do(ctx)
}

// leader waits until a node leads.
func (k *keep) leader() (leader *fleet.Node) {
	k.t.Helper()
	await(k.t, "a leader", func() bool {
		for _, n := range k.nodes {
			ctx, cancel := context.WithTimeout(k.t.Context(), time.Second)
			status, err := k.admin.NodeStatus(ctx, n.Endpoint)
			cancel()
			if err == nil && status.GetLeader() == n.Name() && n.Alive() {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// fall kills the leader, waits until clients are answered, and starts it again. One node
// is spared: it hands over before.
func (k *keep) fall(spared *fleet.Node, ledger *bank.Ledger) {
	k.t.Helper()
	leader := k.leader()
	for leader == spared {
		k.within(func(ctx context.Context) { k.must(k.admin.TransferLeadership(ctx, "")) })
		leader = k.leader()
	}
	k.must(leader.Kill())
	k.leader()
	k.answers(ledger)
	k.must(leader.Start())
}

// answers waits for some that come now.
func (k *keep) answers(ledger *bank.Ledger) {
	k.t.Helper()
	before := len(ledger.Entries())
	await(k.t, "answers", func() bool { return len(ledger.Entries()) >= before+30 })
}

// veteran is a connection of somebody whose certificate nobody replaces.
type veteran struct {
	conn  *grpc.ClientConn
	dials atomic.Int32
	pair  tls.Certificate
}

// shown is what an operator would show now.
func (k *keep) shown() tls.Certificate {
	k.t.Helper()
	s := k.papers.Operator()
	source, err := certs.Open(certs.Files{CA: s.CA, Certificate: s.Certificate, Key: s.Key}, nil)
	k.must(err)
	return source.Client("").Certificates[0]
}

// veteran is one who shows a pair to a node from now on.
func (k *keep) veteran(pair tls.Certificate, to string) *veteran {
	k.t.Helper()
	v := &veteran{pair: pair}
	var err error
	v.conn, err = grpc.NewClient(to, grpc.WithTransportCredentials(credentials.NewTLS(k.shows(pair))),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			v.dials.Add(1)
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}))
	k.must(err)
	k.t.Cleanup(func() { v.conn.Close() })
	return v
}

// asks asks a node for its status.
func (v *veteran) asks(ctx context.Context) error {
	_, err := decreev1.NewClusterClient(v.conn).Status(ctx, &decreev1.StatusRequest{})
	return err
}

// shows is TLS that verifies nodes as clients do, and shows a pair whatever it is worth.
func (k *keep) shows(pair tls.Certificate) *tls.Config {
	source, err := certs.Open(certs.Files{CA: k.papers.Operator().CA}, nil)
	k.must(err)
	cfg := source.Client("")
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return cfg
}

// welcome connects with a pair and waits for the node's word.
func (k *keep) welcome(pair tls.Certificate, to string) error {
	cfg := k.shows(pair)
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", to, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	k.must(conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Read(make([]byte, 1))
	return err
}

// teller opens the accounts.
func (k *keep) teller() *bank.Teller {
	k.t.Helper()
	teller := &bank.Teller{
		Client: k.tellers, Banks: keepBanks, Offices: k.offices, Accounts: 200, Balance: 1000, Patience: patience, Ledger: &bank.Ledger{},
	}
	k.within(func(ctx context.Context) { k.must(teller.Open(ctx)) })
	return teller
}

// expire waits until the certificates with which it began have ended.
func (k *keep) expire() {
	k.t.Helper()
	everybodys := 3 + fleet.Nodes + len(keepBanks)
	await(k.t, "all first certificates to expire", func() bool { return k.papers.Expired() >= everybodys })
}

func (k *keep) log(n *fleet.Node) string {
	k.t.Helper()
	text, err := os.ReadFile(filepath.Join(k.fleet.Dir(), n.Name()+".log"))
	k.must(err)
	return string(text)
}

func TestCertificatesExpireUnderLoad(t *testing.T) {
	k := newKeep(t)
	teller := k.teller()
	spared := k.nodes[0]
	old := k.veteran(k.shown(), spared.Endpoint)
	k.within(func(ctx context.Context) { k.must(old.asks(ctx)) })

	k.business(teller, func() {
		k.fall(spared, teller.Ledger) // whoever leads now read its files before they were replaced
		k.expire()
		k.answers(teller.Ledger)
		k.outlived(old, spared)
	})
	k.reconnected()
	k.business(teller, func() { k.fall(spared, teller.Ledger) })
	k.audit(teller)
	if !strings.Contains(k.log(spared), "certificates were read anew") {
		t.Error("the spared node has read no certificate anew")
	}
}

// TestForgottenCertificates lets all of them end, and replaces them when it is too late:
// business goes on until the leader falls, and again once there are new ones.
func TestForgottenCertificates(t *testing.T) {
	k := newKeep(t)
	k.must(k.papers.Close()) // nobody replaces anything
	teller := k.teller()
	leader := k.leader()
	k.business(teller, func() {
		k.expire()
		k.answers(teller.Ledger)
		k.must(leader.Kill())
		await(t, "an election to fail for want of a certificate", func() bool {
			for _, n := range k.nodes {
				if n != leader && strings.Contains(k.log(n), "certificate has expired") {
					return true
				}
			}
			return false
		})
		k.must(k.papers.Renew())
		k.leader()
		k.answers(teller.Ledger)
		k.must(leader.Start())
	})
	// Services look for new certificates every two seconds: until then the new leader
	// reaches none.
	k.audit(teller, client.AbortUnavailable)
}

// business has money move while something happens.
func (k *keep) business(teller *bank.Teller, meanwhile func()) {
	k.t.Helper()
	open, enough := context.WithCancel(k.t.Context())
	defer enough()
	ended := make(chan error, 1)
	traffic := bank.Traffic{Seed: 1, From: len(teller.Ledger.Entries()), Enough: open.Done(), Workers: 4, Pace: 5 * time.Millisecond}
	go func() {
		_, err := teller.Run(k.t.Context(), traffic, func(bank.Entry) {})
		ended <- err
	}()
	meanwhile()
	enough()
	k.must(<-ended)
}

// outlived holds what becomes of a certificate whose time is over.
func (k *keep) outlived(old *veteran, at *fleet.Node) {
	k.t.Helper()
	if left := time.Until(old.pair.Leaf.NotAfter); left > 0 {
		k.t.Fatalf("the old certificate is good for %s", left)
	}
	k.within(func(ctx context.Context) {
		if err := old.asks(ctx); err != nil || old.dials.Load() != 1 {
			k.t.Errorf("a connection that has outlived its certificate: %v, and it was made %d times", err, old.dials.Load())
		}
	})
	if err := k.welcome(old.pair, at.Endpoint); err == nil || !strings.Contains(err.Error(), "expired certificate") {
		k.t.Errorf("a new connection with a certificate that has ended: %v", err)
	}
	if err := k.welcome(k.shown(), at.Endpoint); err != nil {
		k.t.Errorf("a new connection with the one that replaced it: %v", err)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: k.shows(k.shown())}, Timeout: patience}
	defer web.CloseIdleConnections()
	answer, err := web.Get("https://" + at.HTTP + "/v1/cluster")
	k.must(err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		k.t.Errorf("the gateway answers %s", answer.Status)
	}
}

// reconnected starts the services anew, so that the leader has to show them what replaced
// its first certificate.
func (k *keep) reconnected() {
	k.t.Helper()
	for _, p := range k.fleet.Processes() {
		if k.offices[p.Name()] != nil {
			k.must(p.Kill())
			k.must(p.Start())
		}
	}
	for _, name := range keepBanks {
		k.reached(name)
	}
}

// reached waits until the leader reaches a bank.
func (k *keep) reached(name string) {
	k.t.Helper()
	await(k.t, name+" to answer the leader", func() bool {
		found, err := k.admin.CheckParticipant(k.t.Context(), name)
		return err == nil && found.GetReachable()
	})
}

// audit holds everything against everything else, and that nothing failed, but for what is
// excused.
func (k *keep) audit(teller *bank.Teller, excused ...client.AbortCode) {
	k.t.Helper()
	await(k.t, "everything to be delivered", func() bool {
		applied := map[uint64]bool{}
		for _, n := range k.nodes {
			status, err := k.admin.NodeStatus(k.t.Context(), n.Endpoint)
			if err != nil || status.GetUnfinished() > 0 {
				return false
			}
			applied[status.GetAppliedIndex()] = true
		}
		return len(applied) == 1
	})
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	status, err := k.admin.Status(ctx)
	k.must(err)
	var views []bank.NodeView
	for _, endpoint := range k.nodes.Endpoints() {
		view, err := bank.ReadNode(ctx, endpoint, k.papers.Operator())
		k.must(err)
		views = append(views, view)
	}
	k.must(k.fleet.Stop())
	var books []bank.Books
	for _, name := range keepBanks {
		b, err := k.offices[name].Books(ctx, status.GetCluster())
		k.must(err)
		books = append(books, b)
	}
	entries := teller.Ledger.Entries()
	for _, found := range []bank.Findings{
		bank.AuditAnswers(entries), bank.AuditNodes(entries, views), bank.AuditDamage(views),
		bank.AuditBranches(views[0], books), bank.AuditMoney(entries, views[0], books, teller.Total()),
	} {
		for _, text := range found.Texts {
			k.t.Error(text)
		}
	}
	reasons := map[client.AbortCode]int{}
	for _, e := range entries {
		if e.Err == nil && e.Result.Outcome == client.Aborted {
			reasons[e.Result.Reason.Code]++
		}
	}
	k.t.Logf("%d transfers, aborted for %v; %d certificates expired", len(entries), reasons, k.papers.Expired())
	for code, n := range reasons {
		if code != client.AbortVote && !slices.Contains(excused, code) {
			k.t.Errorf("%d transfers failed: %s", n, code)
		}
	}
}
