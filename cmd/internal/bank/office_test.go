package bank

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/decree-tx/decree/cmd/internal/papers"
	"github.com/decree-tx/decree/participants"
	grpcparticipant "github.com/decree-tx/decree/participants/grpc"
	"github.com/decree-tx/decree/participants/kv"
	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/participants/participanttest/databases"
	"github.com/decree-tx/decree/participants/statements"
	participantv1 "github.com/decree-tx/decree/transport/api/decree/participant/v1"
	"github.com/decree-tx/decree/transport/certs"
)

// What is proven here: every office reads from its resource what is there, and
// asks for what it was told to ask for. The resources are real: database servers,
// and services with their files.

func TestMain(m *testing.M) { os.Exit(databases.Run(m)) }

const cluster = "c1"

func newID(t *testing.T) (id [16]byte) {
	t.Helper()
	made, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func branchOf(t *testing.T, payload any) participants.Branch {
	t.Helper()
	text, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	return participants.Branch{Cluster: cluster, TxID: newID(t), Number: 1, Epoch: 1, Payload: text}
}

func nameOf(b participants.Branch) Branch { return Branch{b.TxID.String(), b.Number} }

// checkBooks holds the balances, and the fates of the branches.
func checkBooks(t *testing.T, got Books, balances map[string]int64, fates map[Branch]participants.Status) {
	t.Helper()
	if !maps.Equal(got.Balances, balances) {
		t.Errorf("balances %v, want %v", got.Balances, balances)
	}
	if !maps.Equal(got.Fates, fates) {
		t.Errorf("fates %v, want %v", got.Fates, fates)
	}
}

// scenario opens two accounts, commits a move, leaves one prepared, and has one
// refused. It is played to any participant that serves an office.
func scenario(t *testing.T, o Office, p participants.Participant) (fates map[Branch]participants.Status) {
	t.Helper()
	ctx := t.Context()
	prepare := func(moves []Move, opening, yes bool) participants.Branch {
		t.Helper()
		b := branchOf(t, o.Payload(moves, opening))
		if vote, err := p.Prepare(ctx, b); err != nil || (vote.Reason == "") != yes {
			t.Fatalf("prepare %v: %v %v, want yes: %t", moves, vote, err, yes)
		}
		return b
	}
	alice, bob := Account{"b", "alice"}, Account{"b", "bob"}
	opening := prepare([]Move{{alice, 100}, {bob, 7}}, true, true)
	if err := p.Commit(ctx, opening); err != nil {
		t.Fatal(err)
	}
	moved := prepare([]Move{{alice, -30}, {bob, 3}}, false, true)
	if err := p.Commit(ctx, moved); err != nil {
		t.Fatal(err)
	}
	prepare([]Move{{alice, -71}}, false, false)
	held := prepare([]Move{{alice, -70}}, false, true)
	if got, err := o.Prepared(ctx, cluster); err != nil || !slices.Equal(got, []Branch{nameOf(held)}) {
		t.Errorf("prepared %v (%v), want %v", got, err, nameOf(held))
	}
	return map[Branch]participants.Status{
		nameOf(opening): participants.StatusCommitted, nameOf(moved): participants.StatusCommitted, nameOf(held): participants.StatusPrepared,
	}
}

// withoutRefusals drops what a participant remembers of its own noes.
func withoutRefusals(b Books) Books {
	maps.DeleteFunc(b.Fates, func(_ Branch, s participants.Status) bool { return s == participants.StatusAborted })
	return b
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs a service until stop is called.
func serve(t *testing.T, run func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- run(ctx) }()
	return func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("the service ended: %v", err)
		}
	}
}

// driven is the office's service as decree's gRPC driver sees it.
func driven(t *testing.T, o Office) participants.Participant {
	t.Helper()
	p := o.Participant()
	config, err := p.GetConfig().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	opened, err := grpcparticipant.Driver{}.Open(t.Context(),
		participants.Registration{Name: p.GetName(), Driver: p.GetDriver(), Config: config}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	return opened
}

func TestServicesAsOffices(t *testing.T) {
	secured, err := papers.New(papers.Config{Dir: filepath.Join(t.TempDir(), "certs"), Life: papers.Lasting, Services: []string{"b"}})
	if err != nil {
		t.Fatal(err)
	}
	defer secured.Close()
	for name, p := range map[string]*papers.Papers{"in plain text": nil, "by TLS": secured} {
		t.Run(name, func(t *testing.T) { testServicesAsOffices(t, p) })
	}
}

// credentialsOf are those of the service, as its process makes them.
func credentialsOf(t *testing.T, p *papers.Papers) []grpc.ServerOption {
	t.Helper()
	if p == nil {
		return nil
	}
	args := p.Service("b") // --ca FILE --cert FILE --key FILE
	source, err := certs.Open(certs.Files{CA: args[1], Certificate: args[3], Key: args[5]}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(source.ServerForNodes("h2")))}
}

func testServicesAsOffices(t *testing.T, p *papers.Papers) {
	path := filepath.Join(t.TempDir(), "office.db")
	for _, tt := range []struct {
		kind  string
		open  func(Service) (Office, error)
		serve func(ctx context.Context, l net.Listener, path string, opts ...grpc.ServerOption) error
	}{
		{"kv", NewKV, func(ctx context.Context, l net.Listener, path string, opts ...grpc.ServerOption) error {
			store, err := kv.Open(ctx, path, hclog.NewNullLogger())
			if err != nil {
				return err
			}
			defer store.Close()
			return grpcparticipant.Serve(ctx, l, store, opts...)
		}},
		{"wallet", NewWallet, ServeWallet},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			path := path + tt.kind
			l := listen(t)
			office, err := tt.open(Service{"b", l.Addr().String(), path, p})
			if err != nil {
				t.Fatal(err)
			}
			defer office.Close()
			stop := serve(t, func(ctx context.Context) error { return tt.serve(ctx, l, path, credentialsOf(t, p)...) })
			want := scenario(t, office, driven(t, office))
			stop()
			books, err := office.Books(t.Context(), cluster)
			if err != nil {
				t.Fatal(err)
			}
			checkBooks(t, withoutRefusals(books), map[string]int64{"alice": 70, "bob": 10}, want)
			if others, err := office.Books(t.Context(), "other"); err != nil || len(others.Fates) != 0 || len(others.Strangers) < len(want) {
				t.Errorf("another cluster's books: %v (%v)", others, err)
			}
		})
	}
}

// database is an office's, with what a driver would write into it.
type database struct {
	t      *testing.T
	server *databases.Server
	name   string
	office Office
}

func (d database) exec(sql string) {
	d.t.Helper()
	if err := d.server.Exec(d.t.Context(), d.name, sql); err != nil {
		d.t.Fatal(err)
	}
}

func openDatabase(t *testing.T, e databases.Engine) database {
	t.Helper()
	server := databases.Shared(t, e)
	name := databases.FreshDatabase(t, server)
	open := NewPostgres
	if e == databases.MariaDB {
		open = NewMariaDB
	}
	office, err := open(t.Context(), SQLConfig{Name: "b", DSN: server.DSN(name), Reference: "env:DSN"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { office.Close() })
	d := database{t, server, name, office}
	d.exec(`CREATE TABLE decree_branch (gid varchar(128) PRIMARY KEY, state varchar(8))`)
	return d
}

// prepared leaves a branch prepared under a name that decree could have given.
func (d database) prepared(b marker.Branch) {
	if d.server.Engine() == databases.Postgres {
		d.exec(fmt.Sprintf(`BEGIN; INSERT INTO decree_branch VALUES ('%s', 'prepared'); PREPARE TRANSACTION '%[1]s'`, b.GID()))
		d.t.Cleanup(func() { d.server.Exec(context.Background(), d.name, fmt.Sprintf(`ROLLBACK PREPARED '%s'`, b.GID())) })
		return
	}
	d.exec(fmt.Sprintf(`XA START %s; INSERT INTO decree_branch VALUES ('%s', 'prepared'); XA END %[1]s; XA PREPARE %[1]s`, b.XID(), b.GID()))
	d.t.Cleanup(func() { d.server.Exec(context.Background(), d.name, fmt.Sprintf(`XA ROLLBACK %s`, b.XID())) })
}

func TestDatabasesAsOffices(t *testing.T) {
	for _, e := range []databases.Engine{databases.Postgres, databases.MariaDB} {
		t.Run(e.String(), func(t *testing.T) {
			d := openDatabase(t, e)
			mark := func(n int) marker.Branch { return marker.Branch{Cluster: cluster, TxID: newID(t), Number: n} }
			committed, aborted, held := mark(1), mark(2), mark(3)
			d.exec(`INSERT INTO account VALUES ('alice', 70), ('bob', 10)`)
			d.exec(fmt.Sprintf(`INSERT INTO decree_branch VALUES ('%s', 'prepared'), ('%s', 'aborted'), ('own', 'x')`, committed.GID(), aborted.GID()))
			d.prepared(held)

			books, err := d.office.Books(t.Context(), cluster)
			if err != nil {
				t.Fatal(err)
			}
			want := map[Branch]participants.Status{
				{committed.TxID.String(), 1}: participants.StatusCommitted, {aborted.TxID.String(), 2}: participants.StatusAborted,
				{held.TxID.String(), 3}: participants.StatusPrepared,
			}
			balances := map[string]int64{"alice": 70, "bob": 10}
			checkBooks(t, books, balances, want)
			if !slices.Contains(books.Strangers, "own in state x") {
				t.Errorf("strangers %v", books.Strangers)
			}
			posted, err := d.office.(Live).Posted(t.Context(), cluster)
			if err != nil {
				t.Fatal(err)
			}
			delete(want, Branch{held.TxID.String(), 3})
			checkBooks(t, posted, balances, want)
			if got, err := d.office.Prepared(t.Context(), cluster); err != nil || !slices.Equal(got, []Branch{{held.TxID.String(), 3}}) {
				t.Errorf("prepared %v (%v)", got, err)
			}
			if _, err := d.office.Prepared(t.Context(), "other"); err == nil || !strings.Contains(err.Error(), "not the cluster's") {
				t.Errorf("another cluster's prepared: %v", err)
			}
		})
	}
}

// TestStatementsAsTheDriverTakesThem holds the payload against the catalogue, and
// the catalogue's SQL against a real server.
func TestStatementsAsTheDriverTakesThem(t *testing.T) {
	for _, e := range []databases.Engine{databases.Postgres, databases.MariaDB} {
		t.Run(e.String(), func(t *testing.T) {
			d := openDatabase(t, e)
			var set statements.Set
			config, err := d.office.Participant().GetConfig().Fields["catalogue"].MarshalJSON()
			if err == nil {
				decoder := json.NewDecoder(bytes.NewReader(config))
				decoder.DisallowUnknownFields()
				err = decoder.Decode(&set.Catalogue)
			}
			if err != nil || set.Validate() != nil {
				t.Fatalf("catalogue %s: %v, %v", config, err, set.Validate())
			}
			alice, bob := Account{"b", "alice"}, Account{"b", "bob"}
			for _, step := range []struct {
				moves   []Move
				opening bool
				want    string // rows touched, one after the other
			}{
				{[]Move{{alice, 100}, {bob, 0}}, true, "1 1"},
				{[]Move{{alice, -30}, {bob, 30}}, false, "1 1"},
				{[]Move{{alice, -71}}, false, "0"},
			} {
				payload, err := json.Marshal(d.office.Payload(step.moves, step.opening))
				if err != nil {
					t.Fatal(err)
				}
				parsed, err := set.Parse(payload)
				if err != nil {
					t.Fatalf("%s: %v", payload, err)
				}
				var rows []string
				for _, s := range parsed {
					args := slices.Clone(s.Args)
					for i, arg := range args {
						if n, ok := arg.(json.Number); ok {
							args[i], _ = n.Int64()
						}
					}
					done, err := d.office.(*sqlOffice).db.ExecContext(t.Context(), s.SQL, args...)
					if err != nil {
						t.Fatal(err)
					}
					n, _ := done.RowsAffected()
					rows = append(rows, fmt.Sprint(n))
				}
				if got := strings.Join(rows, " "); got != step.want {
					t.Errorf("%s touched %s rows, want %s", payload, got, step.want)
				}
			}
			books, err := d.office.Books(t.Context(), cluster)
			if err != nil {
				t.Fatal(err)
			}
			checkBooks(t, books, map[string]int64{"alice": 70, "bob": 30}, nil)
		})
	}
}

// TestWalletGivesBack holds that a wallet shows nothing of what is only
// prepared, and gives it back when it is aborted.
func TestWalletGivesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wallet.db")
	l := listen(t)
	office, err := NewWallet(Service{Name: "b", Address: l.Addr().String(), Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer office.Close()
	stop := serve(t, func(ctx context.Context) error { return ServeWallet(ctx, l, path) })
	fates := scenario(t, office, driven(t, office))
	for b, fate := range fates {
		if fate != participants.StatusPrepared {
			continue
		}
		api := office.(*walletOffice).api
		if _, err := api.Abort(t.Context(), &participantv1.AbortRequest{Branch: &participantv1.Branch{Cluster: cluster, Txid: b.TxID, Number: uint32(b.Number), Epoch: 1}}); err != nil {
			t.Fatal(err)
		}
		delete(fates, b)
	}
	stop()
	books, err := office.Books(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	checkBooks(t, books, map[string]int64{"alice": 70, "bob": 10}, fates)
}
