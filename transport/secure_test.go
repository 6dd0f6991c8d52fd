// These tests prove who may call what: every method of every service against every
// role; that nobody's word about a caller is taken but a node's; that HTTP is no way
// around; and that nobody gets past its limits. Connections are real TLS.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/decree-tx/decree/coordinator"
	"github.com/decree-tx/decree/fsm"
	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/transport/access"
	"github.com/decree-tx/decree/transport/api/decree/submitmany"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/certs"
	"github.com/decree-tx/decree/transport/client"
)

// castle is nodes whose API is secured, and the authority that they trust.
type castle struct {
	world
	t         testing.TB
	dir       string
	authority certs.Pair
	access    *access.File
	limits    access.Limits
}

func newCastle(t testing.TB, lines ...string) *castle {
	t.Helper()
	c := &castle{t: t, dir: t.TempDir()}
	var err error
	if c.authority, err = certs.NewAuthority("test", time.Hour); err != nil {
		t.Fatal(err)
	}
	c.put("ca.pem", c.authority.Certificate)
	c.admit(lines...)
	return c
}

func (c *castle) path(name string) string { return filepath.Join(c.dir, name) }

func (c *castle) put(name string, content []byte) {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// admit writes the access file anew.
func (c *castle) admit(lines ...string) {
	c.t.Helper()
	c.put("access", []byte(strings.Join(lines, "\n")))
	if c.access != nil {
		if err := c.access.Reload(); err != nil {
			c.t.Fatal(err)
		}
		return
	}
	var err error
	if c.access, err = access.Open(c.path("access"), nil); err != nil {
		c.t.Fatal(err)
	}
}

// files has a certificate issued, once for each identity.
func (c *castle) files(who string) certs.Files {
	c.t.Helper()
	name := strings.ReplaceAll(who, "/", "-")
	files := certs.Files{CA: c.path("ca.pem"), Certificate: c.path(name + ".pem"), Key: c.path(name + ".key")}
	if _, err := os.Stat(files.Key); err == nil {
		return files
	}
	id, err := certs.Parse(who)
	if err != nil {
		c.t.Fatal(err)
	}
	r := certs.Request{Identity: id, Lifetime: time.Minute}
	if id.Role == certs.Node {
		r.Hosts = []string{"127.0.0.1"}
	}
	pair, err := certs.Issue(c.authority, r)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := pair.Write(files.Certificate, files.Key); err != nil {
		c.t.Fatal(err)
	}
	return files
}

func (c *castle) source(who string) *certs.Source {
	c.t.Helper()
	files := c.files(who)
	if who == "nobody/x" {
		files.Certificate, files.Key = "", ""
	}
	s, err := certs.Open(files, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// node serves a node; edit may be nil.
func (c *castle) node(id string, edit func(*Config)) *testNode {
	c.t.Helper()
	n := c.serve(c.t, id, func(cfg *Config) {
		cfg.Security = Security{Certificates: c.source("node/" + id), Access: c.access, Limits: c.limits}
		if edit != nil {
			edit(cfg)
		}
	})
	n.log.apply(fsm.RaiseLevel{Level: fsm.LevelOwner})
	return n
}

func (c *castle) leaderNode(id string) *testNode {
	c.t.Helper()
	n := c.node(id, nil)
	n.coordinator.lead(true)
	n.node.believe(id)
	return n
}

// dial connects as somebody, or, where who is empty, without a certificate.
func (c *castle) dial(n *testNode, who string, options ...grpc.DialOption) *grpc.ClientConn {
	c.t.Helper()
	var source *certs.Source
	if who == "" {
		var err error
		if source, err = certs.Open(certs.Files{CA: c.path("ca.pem")}, nil); err != nil {
			c.t.Fatal(err)
		}
	} else {
		source = c.source(who)
	}
	conn, err := grpc.NewClient(n.api, append(options, grpc.WithTransportCredentials(source.DialGRPC()))...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	return conn
}

// may is who may call what, a second time: a change of rights is made in two places, by
// somebody who meant it. c client, p participant, o operator, r reader, n node; - is
// whoever says nothing about itself, too.
var may = map[string]string{
	"decree.v1.Transactions/Submit":     "co",
	"decree.v1.Transactions/SubmitMany": "con",
	"decree.v1.Transactions/Begin":      "co",
	"decree.v1.Transactions/Enlist":     "co",
	"decree.v1.Transactions/Commit":     "co",
	"decree.v1.Transactions/Abort":      "co",
	"decree.v1.Transactions/Inquire":    "cpo",
	"decree.v1.Transactions/Get":        "cor",
	"decree.v1.Transactions/List":       "cor",
	"decree.v1.Transactions/Watch":      "cor",
	"decree.v1.Timelines/GetTimeline":   "cor",

	"decree.v1.Live/Look":                "or",
	"decree.v1.Operations/ExamineBranch": "o",
	"decree.v1.Operations/ResolveBranch": "o",
	"decree.v1.Operations/ListAudit":     "or",
	"decree.v1.Live/WatchCluster":        "or",

	"decree.v1.Participants/Put":    "o",
	"decree.v1.Participants/Get":    "or",
	"decree.v1.Participants/List":   "or",
	"decree.v1.Participants/Delete": "o",
	"decree.v1.Participants/Check":  "o",

	"decree.v1.Cluster/Status":             "cporn",
	"decree.v1.Cluster/AddNode":            "o",
	"decree.v1.Cluster/RemoveNode":         "o",
	"decree.v1.Cluster/TransferLeadership": "o",
	"decree.v1.Groups/SetGroup":            "o",

	"decree.v1.Snapshots/Save":            "o",
	"decree.v1.Unresolved/ListUnresolved": "o",
	"decree.v1.Unresolved/GetEvidence":    "o",
	"decree.v1.Unresolved/Decide":         "o",

	"grpc.health.v1.Health/Check": "cporn-",
	"grpc.health.v1.Health/Watch": "cporn-",
	"grpc.health.v1.Health/List":  "cporn-",

	"grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      "cporn",
	"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "cporn",
}

func TestEveryMethodAndRole(t *testing.T) {
	c := newCastle(t)
	n := c.leaderNode("n1")
	callers := map[string]*grpc.ClientConn{"-": c.dial(n, "")}
	for _, role := range certs.Roles {
		callers[string(role[:1])] = c.dial(n, string(role)+"/x")
	}
	methods := 0
	for service, info := range n.Server.grpc.GetServiceInfo() {
		for _, method := range info.Methods {
			methods++
			name := service + "/" + method.Name
			allowed, ok := may[name]
			if !ok {
				t.Errorf("%s has no row in this test; nor may it in roles.go", name)
				continue
			}
			for letter, conn := range callers {
				want := codes.PermissionDenied
				switch {
				case strings.Contains(allowed, letter):
					want = codes.OK
				case letter == "-":
					want = codes.Unauthenticated
				}
				err := probe(t, conn, "/"+name, method)
				got := status.Code(err)
				if refused := got == codes.PermissionDenied || got == codes.Unauthenticated; refused != (want != codes.OK) || refused && got != want {
					t.Errorf("%s by %s: %v, want %s", name, letter, err, want)
				}
				if got == codes.PermissionDenied && !strings.Contains(status.Convert(err).Message(), "needs the role") {
					t.Errorf("%s by %s is not told which role it needs: %v", name, letter, err)
				}
			}
		}
	}
	if methods > len(may) || len(may) != len(rights) {
		t.Errorf("%d methods, %d rows in this test, %d in roles.go", methods, len(may), len(rights))
	}
}

// probe makes an empty call, and of a stream learns whether it was let in.
func probe(t *testing.T, conn *grpc.ClientConn, name string, method grpc.MethodInfo) error {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if !method.IsServerStream && !method.IsClientStream {
		return conn.Invoke(ctx, name, &emptypb.Empty{}, &emptypb.Empty{})
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, name)
	if err != nil {
		return err
	}
	stream.SendMsg(&emptypb.Empty{})
	stream.CloseSend()
	if strings.HasSuffix(name, "Transactions/Watch") {
		// Nothing comes until something changes: that it goes on is the answer.
		header := make(chan error, 1)
		go func() { header <- stream.RecvMsg(&emptypb.Empty{}) }()
		select {
		case err := <-header:
			return err
		case <-time.After(100 * time.Millisecond):
			return nil
		}
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// TestAMethodWithoutARowIsNobodys: deny by default.
func TestAMethodWithoutARowIsNobodys(t *testing.T) {
	c := newCastle(t)
	g := newGuard(Security{Certificates: c.source("node/n1")})
	handler := func(context.Context, any) (any, error) { return nil, errors.New("it was called") }
	_, err := g.unary(inwardContext(t, "operator/ada"), nil, &grpc.UnaryServerInfo{FullMethod: "/decree.v1.New/Method"}, handler)
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "nobody's to call") {
		t.Error(err)
	}
}

// TestOnlyNodesNameCallers: the caller that is forwarded is the one who called, and
// nobody else can pretend to forward.
func TestOnlyNodesNameCallers(t *testing.T) {
	token, line := access.NewToken(certs.Identity{Role: certs.Client, Name: "batch"})
	c := newCastle(t, line)
	leader := c.leaderNode("n1")
	follower := c.node("n2", nil)
	follower.follow("n1")

	seen := make(chan string, 10)
	leader.coordinator.begin = func(ctx context.Context, id txn.TxID, timeout time.Duration) (*txn.Transaction, error) {
		seen <- callerOf(ctx).String()
		return beginning(id), nil
	}
	web := decreev1.NewTransactionsClient(c.dial(follower, "client/web"))
	if _, err := web.Begin(t.Context(), &decreev1.BeginRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "client/web" {
		t.Errorf("the leader saw %q", got)
	}
	// Forged, at every node and by every role.
	for _, n := range []*testNode{leader, follower} {
		for _, who := range []string{"client/web", "operator/ada", "reader/eve", "participant/bank"} {
			forged := metadata.AppendToOutgoingContext(t.Context(), metadataCaller, "operator/ada")
			_, err := decreev1.NewTransactionsClient(c.dial(n, who)).Begin(forged, &decreev1.BeginRequest{})
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s says that it is another: %v", who, err)
			}
		}
	}
	forged := metadata.AppendToOutgoingContext(t.Context(), metadataCaller, "operator/ada", "authorization", "Bearer "+token)
	if _, err := decreev1.NewTransactionsClient(c.dial(leader, "")).Begin(forged, &decreev1.BeginRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a token's holder says that it is another: %v", err)
	}
	// A node's own word must be one.
	for _, caller := range [][]string{{}, {""}, {"node/n1"}, {"root/x"}, {"client/web", "operator/ada"}} {
		ctx := t.Context()
		for _, one := range caller {
			ctx = metadata.AppendToOutgoingContext(ctx, metadataCaller, one)
		}
		_, err := decreev1.NewTransactionsClient(c.dial(leader, "node/n3")).Begin(ctx, &decreev1.BeginRequest{})
		if code := status.Code(err); code != codes.PermissionDenied && code != codes.Unauthenticated {
			t.Errorf("a node passes on the caller %q: %v", caller, err)
		}
	}
	if len(seen) > 0 {
		t.Errorf("the coordinator was asked by %q", <-seen)
	}
}

// TestSubmissionsOfAStreamAreAskedOneByOne, over a follower, whose stream to the leader
// carries those of many callers.
func TestSubmissionsOfAStreamAreAskedOneByOne(t *testing.T) {
	c := newCastle(t)
	leader := c.leaderNode("n1")
	follower := c.node("n2", nil)
	follower.follow("n1")
	request := func() *decreev1.SubmitRequest {
		return &decreev1.SubmitRequest{Branches: []*decreev1.NewBranch{{Participant: "a"}}}
	}
	submit := func(n *testNode, who, caller string) error {
		ready := func(context.Context) error { return nil }
		line := submitmany.New(t.Context(), c.dial(n, who), ready)
		defer line.Close()
		_, err := line.SubmitFor(t.Context(), nil, caller, request())
		return err
	}
	for _, tt := range []struct {
		who, caller string
		want        codes.Code
	}{
		{"client/web", "", codes.OK},
		{"operator/ada", "", codes.OK},
		{"client/web", "client/shop", codes.PermissionDenied},
		{"operator/ada", "client/shop", codes.PermissionDenied},
		{"node/n3", "client/shop", codes.OK},
		{"node/n3", "", codes.Unauthenticated},
		{"node/n3", "reader/eve", codes.PermissionDenied},
		{"node/n3", "node/n1", codes.PermissionDenied},
	} {
		for _, n := range []*testNode{leader, follower} {
			if err := submit(n, tt.who, tt.caller); status.Code(err) != tt.want {
				t.Errorf("%s for %q: %v, want %s", tt.who, tt.caller, err, tt.want)
			}
		}
	}
}

func TestHTTPIsNoWayAround(t *testing.T) {
	token, line := access.NewToken(certs.Identity{Role: certs.Reader, Name: "page"})
	c := newCastle(t, line)
	n := c.leaderNode("n1")
	ask := func(who, bearer, method, path, body string, header ...string) (int, string) {
		t.Helper()
		cfg := c.source("client/web").Client("")
		if who == "" {
			cfg.Certificates = nil
		} else {
			cfg = c.source(who).Client("")
		}
		web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
		defer web.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), method, strings.Replace(n.web, "http:", "https:", 1)+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if bearer != "" {
			r.Header.Set("Authorization", bearer)
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		answer, err := web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	const submit = `{"branches":[{"participant":"a","json":1}]}`
	for _, tt := range []struct {
		who, bearer, method, path, body string
		want                            int
	}{
		{"", "", "GET", "/healthz", "", 200},
		{"", "", "GET", "/readyz", "", 200},
		{"", "", "GET", "/v1/cluster", "", 401},
		{"", "", "POST", "/v1/transactions", submit, 401},
		{"", "Bearer " + token, "GET", "/v1/cluster", "", 200},
		{"", "bearer " + token, "GET", "/v1/transactions", "", 200},
		{"", "Bearer " + token, "POST", "/v1/transactions", submit, 403},
		{"", "Bearer " + token + "x", "GET", "/v1/cluster", "", 401},
		{"", "Basic " + token, "GET", "/v1/cluster", "", 401},
		{"client/web", "", "POST", "/v1/transactions", submit, 200},
		{"client/web", "", "GET", "/v1/participants", "", 403},
		{"client/web", "Bearer " + token, "POST", "/v1/transactions", submit, 403}, // the token counts
		{"client/web", "Bearer nonsense", "POST", "/v1/transactions", submit, 401},
		{"operator/ada", "", "GET", "/v1/participants", "", 200},
		{"participant/a", "", "GET", "/v1/transactions", "", 403},
		{"node/n9", "", "GET", "/v1/cluster", "", 403},
	} {
		got, text := ask(tt.who, tt.bearer, tt.method, tt.path, tt.body)
		if got != tt.want {
			t.Errorf("%s %s by %q %.20q: %d %s, want %d", tt.method, tt.path, tt.who, tt.bearer, got, text, tt.want)
		}
		if strings.Contains(text, token) {
			t.Error("a token is told")
		}
	}
	// What a client says of itself in headers reaches nobody.
	for _, name := range []string{"Decree-Caller", "Grpc-Metadata-Decree-Caller"} {
		if got, text := ask("client/web", "", "GET", "/v1/participants", "", name, "operator/ada"); got != 403 {
			t.Errorf("%s is believed: %d %s", name, got, text)
		}
	}
	if answer, err := http.Get(n.web + "/v1/cluster"); err != nil || answer.StatusCode != 400 {
		t.Errorf("plain text: %v, %v", answer, err)
	} else {
		answer.Body.Close()
	}
}

// TestTokensOverGRPC, by the SDK, until they are taken away: from streams too.
func TestTokensOverGRPC(t *testing.T) {
	token, line := access.NewToken(certs.Identity{Role: certs.Client, Name: "web"})
	c := newCastle(t, line)
	n := c.leaderNode("n1")
	sdk := func(s client.Security) *client.Client {
		s.CA = c.path("ca.pem")
		one, err := client.New(client.Config{Endpoints: []string{n.api}, Security: s})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { one.Close() })
		return one
	}
	c.put("token", []byte(token+"\n"))
	for name, s := range map[string]client.Security{"a token": {Token: token}, "a token's file": {TokenFile: c.path("token")}} {
		one := sdk(s)
		if _, err := one.Submit(t.Context(), client.Transaction{Branches: []client.Branch{client.JSON("a", 1)}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := one.Participants(t.Context()); !errors.Is(err, client.ErrDenied) {
			t.Errorf("%s of a client lists participants: %v", name, err)
		}
	}
	if _, err := sdk(client.Security{}).Status(t.Context()); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("nobody is told the status: %v", err)
	}
	one := sdk(client.Security{Token: token})
	if _, err := one.Submit(t.Context(), client.Transaction{Branches: []client.Branch{client.JSON("a", 1)}}); err != nil {
		t.Fatal(err)
	}
	c.admit()
	if _, err := one.Submit(t.Context(), client.Transaction{Branches: []client.Branch{client.JSON("a", 1)}}); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("a token that was taken away, on a stream that is open: %v", err)
	}
	if _, err := client.New(client.Config{Endpoints: []string{n.api}, Security: client.Security{TokenFile: c.path("none")}}); err == nil {
		t.Error("a token's file that is not there is no mistake")
	}
}

// TestPlainTextIsToldWhatIsWrong, both ways.
func TestPlainTextIsToldWhatIsWrong(t *testing.T) {
	c := newCastle(t)
	secure, plain := c.leaderNode("n1"), (&world{}).leader(t, "n2")
	ask := func(api string, s client.Security) error {
		one, err := client.New(client.Config{Endpoints: []string{api}, Security: s})
		if err != nil {
			t.Fatal(err)
		}
		defer one.Close()
		_, err = one.Status(t.Context())
		return err
	}
	for _, tt := range []struct {
		name, api string
		s         client.Security
		want      string
	}{
		{"plain text to TLS", secure.api, client.Security{}, "it speaks TLS, and this client plain text"},
		{"TLS to plain text", plain.api, client.Security{CA: c.path("ca.pem")}, "does not speak TLS"},
		{"another authority", secure.api, client.Security{CA: newCastle(t).path("ca.pem")}, "unknown authority"},
	} {
		if err := ask(tt.api, tt.s); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	low := c.source("client/web").Client("127.0.0.1")
	low.MinVersion, low.MaxVersion, low.NextProtos = tls.VersionTLS12, tls.VersionTLS12, []string{"h2"}
	if conn, err := tls.Dial("tcp", secure.api, low); err == nil {
		conn.Close()
		t.Error("TLS 1.2 is spoken")
	}
}

func TestLimitsOfIdentities(t *testing.T) {
	c := newCastle(t, "client/web rate=1000000 in-flight=2")
	c.limits = access.Limits{InFlight: 1}
	n := c.leaderNode("n1")
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	n.coordinator.submit = func(ctx context.Context, s coordinator.Submission) (coordinator.Result, error) {
		entered <- struct{}{}
		<-leave
		return committed(s.ID), nil
	}
	begin := func(who string) error {
		_, err := decreev1.NewTransactionsClient(c.dial(n, who)).Begin(t.Context(), &decreev1.BeginRequest{})
		return err
	}
	line := submitmany.New(t.Context(), c.dial(n, "client/web"), func(context.Context) error { return nil })
	defer line.Close()
	answers := make(chan error, 10)
	for range 2 { // by the stream: each counts
		go func() {
			_, err := line.Submit(t.Context(), nil, &decreev1.SubmitRequest{Branches: []*decreev1.NewBranch{{Participant: "a"}}})
			answers <- err
		}()
		<-entered
	}
	over := func(err error) {
		t.Helper()
		if status.Code(err) != codes.ResourceExhausted || reasonOf(err) != reasonBusy || delayOf(status.Convert(err), err) <= 0 {
			t.Errorf("one call too many: %v", err)
		}
	}
	_, err := line.Submit(t.Context(), nil, &decreev1.SubmitRequest{Branches: []*decreev1.NewBranch{{Participant: "a"}}})
	over(err)
	over(begin("client/web"))
	if err := begin("client/shop"); err != nil {
		t.Errorf("somebody else's calls count: %v", err)
	}
	close(leave)
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if err := begin("client/web"); err != nil {
		t.Errorf("calls that were answered count: %v", err)
	}
}

// FuzzCaller: whatever a node or the gateway sends as a caller is an identity to the
// letter, or nobody.
func FuzzCaller(f *testing.F) {
	for _, seed := range []string{"client/web", "operator/ada", "node/n1", "", "/", "client/web\x00", "client/web,operator/ada", "CLIENT/web"} {
		f.Add(seed)
	}
	roles := slices.DeleteFunc(slices.Clone(certs.Roles), func(r certs.Role) bool { return r == certs.Node })
	f.Fuzz(func(t *testing.T, sent string) {
		who, err := callerSent(metadata.NewIncomingContext(t.Context(), metadata.Pairs(metadataCaller, sent)))
		if err != nil {
			if who != (certs.Identity{}) {
				t.Fatalf("%q is refused, and is %s", sent, who)
			}
			return
		}
		if who.String() != sent || !slices.Contains(roles, who.Role) {
			t.Fatalf("%q is %s", sent, who)
		}
	})
}

// TestNothingIsAskedWithoutSecurity: no interceptor, no caller, no cost.
func TestNothingIsAskedWithoutSecurity(t *testing.T) {
	n := (&world{}).leader(t, "n1")
	if n.guard != nil {
		t.Error("there is a guard")
	}
	conn, err := grpc.NewClient(n.api, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	forged := metadata.AppendToOutgoingContext(t.Context(), metadataCaller, "operator/ada")
	n.coordinator.begin = func(ctx context.Context, id txn.TxID, timeout time.Duration) (*txn.Transaction, error) {
		if who := callerOf(ctx); who != (certs.Identity{}) {
			return nil, fmt.Errorf("the caller is %s", who)
		}
		return beginning(id), nil
	}
	if _, err := decreev1.NewTransactionsClient(conn).Begin(forged, &decreev1.BeginRequest{}); err != nil {
		t.Error(err)
	}
}
