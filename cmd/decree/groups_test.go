package main

// What is proven here: three clusters of real processes share two banks and share out the
// transactions. Leaders of all of them are killed under load: every txid has one outcome,
// money is neither made nor lost, and nothing stays prepared. A txid that comes to another
// group's cluster is refused there by every way in, whatever became of it at home (R1, R6).

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/fsm/group"
	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

const (
	groupCount    = 3
	groupAccounts = 8
	groupMoney    = 1000 // of each account, at first
)

// decree runs the command, and returns all that it says.
func decree(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(build(t, ""), args...).CombinedOutput()
	return string(out), err
}

// groupOf is the place of a txid's group, from 0.
func groupOf(t *testing.T, txid string) int {
	t.Helper()
	id, err := uuid.Parse(txid)
	if err != nil {
		t.Fatal(err)
	}
	return group.Number(id, groupCount) - 1
}

// httpOf is where the first node of a group serves HTTP: a hundred ports above its gRPC.
func (g *groupGround) httpOf(n int) string {
	g.t.Helper()
	host, port, err := net.SplitHostPort(g.clusters[n][0].Endpoint)
	if err != nil {
		g.t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		g.t.Fatal(err)
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(number+100))
}

// groupGround is three clusters, and what they share.
type groupGround struct {
	t        *testing.T
	fleet    *fleet.Fleet
	ports    []fleet.Port
	clusters []fleet.Cluster
	heads    []*client.Client
	groups   *client.Groups

	mu       sync.Mutex
	outcomes map[string]client.Outcome // what clients were told, by txid
	balances map[string]int            // by bank and account, of what was told as committed
}

func startGroups(t *testing.T) *groupGround {
	t.Helper()
	f, err := fleet.New(fleet.Config{Binary: build(t, ""), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	g := &groupGround{t: t, fleet: f, outcomes: map[string]client.Outcome{}, balances: map[string]int{}}
	t.Cleanup(g.close)
	var cfg client.GroupsConfig
	for n := range groupCount {
		port := g.apart()
		cluster, err := f.StartClusterWith(port, fleet.Options{Prefix: fmt.Sprintf("g%d-", n+1)})
		if err != nil {
			t.Fatal(err)
		}
		g.clusters = append(g.clusters, cluster)
		cfg.Clusters = append(cfg.Clusters, client.Config{Endpoints: cluster.Endpoints()})
		head, err := client.New(cfg.Clusters[n])
		if err != nil {
			t.Fatal(err)
		}
		g.heads = append(g.heads, head)
	}
	if g.groups, err = client.NewGroups(cfg); err != nil {
		t.Fatal(err)
	}
	for n, bank := range []string{"bank-a", "bank-b"} {
		address := g.ports[0].Service(n + 1)
		if _, err := f.Start(bank, "participant", "kv", "--listen", address, "--path", f.Dir()+"/"+bank+".db"); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// apart is a free port at which no other cluster's block begins.
func (g *groupGround) apart() fleet.Port {
	g.t.Helper()
	for {
		port, err := fleet.FreePort(0)
		if err != nil {
			g.t.Fatal(err)
		}
		if !slices.ContainsFunc(g.ports, func(other fleet.Port) bool { return max(port-other, other-port) < 400 }) {
			g.ports = append(g.ports, port)
			return port
		}
	}
}

func (g *groupGround) close() {
	if g.t.Failed() {
		g.t.Log(g.fleet.Logs())
	}
	var errs []error
	for _, head := range g.heads {
		errs = append(errs, head.Close())
	}
	if g.groups != nil {
		errs = append(errs, g.groups.Close())
	}
	if err := errors.Join(append(errs, g.fleet.Close())...); err != nil {
		g.t.Error(err)
	}
}

func (g *groupGround) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	g.t.Cleanup(cancel)
	return ctx
}

// open tells every cluster its group and its participants, as an operator does with the
// command, and funds the accounts.
func (g *groupGround) open() {
	g.t.Helper()
	for n, head := range g.heads {
		endpoints := "--endpoints=" + strings.Join(g.clusters[n].Endpoints(), ",")
		await(g.t, "the group to be told", func() bool {
			_, err := decree(g.t, "cluster", "group", fmt.Sprint(n+1), "--of", fmt.Sprint(groupCount), endpoints)
			return err == nil
		})
		for i, bank := range []string{"bank-a", "bank-b"} {
			config := mustStruct(g.t, map[string]any{"target": g.ports[0].Service(i + 1)})
			if _, err := head.PutParticipant(g.ctx(), &decreev1.Participant{Name: bank, Driver: "grpc", Config: config}); err != nil {
				g.t.Fatal(err)
			}
		}
		if out, err := decree(g.t, "cluster", "status", endpoints); err != nil || !strings.Contains(out, fmt.Sprintf("%d of %d", n+1, groupCount)) {
			g.t.Errorf("the status says %s (%v)", out, err)
		}
	}
	for account := range groupAccounts {
		for _, bank := range []string{"bank-a", "bank-b"} {
			g.transfer(g.ctx(), bank, "", account, groupMoney)
		}
	}
}

// transfer moves money from one bank to the other, or from nowhere, and notes what came of
// it.
func (g *groupGround) transfer(ctx context.Context, to, from string, account, amount int) {
	key := fmt.Sprint("account-", account)
	branches := []client.Branch{client.JSON(to, add(key, amount))}
	if from != "" {
		branches = append(branches, client.JSON(from, add(key, -amount)))
	}
	txid, err := g.groups.NewTxID()
	if err != nil {
		g.t.Error(err)
		return
	}
	r, err := g.groups.Submit(ctx, client.Transaction{TxID: txid, Branches: branches, Wait: client.WaitDecision})
	if err != nil {
		g.t.Errorf("%s: %v", txid, err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.outcomes[txid] = r.Outcome
	if r.Outcome == client.Committed {
		g.balances[to+" "+key] += amount
		if from != "" {
			g.balances[from+" "+key] -= amount
		}
	}
}

// committed counts the transactions of each group that were told as committed.
func (g *groupGround) committed() (by [groupCount]int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for txid, outcome := range g.outcomes {
		if outcome == client.Committed {
			by[groupOf(g.t, txid)]++
		}
	}
	return by
}

// progress waits until every group has committed some more.
func (g *groupGround) progress() {
	g.t.Helper()
	before := g.committed()
	await(g.t, "every group to commit", func() bool {
		now := g.committed()
		for n := range now {
			if now[n] < before[n]+5 {
				return false
			}
		}
		return true
	})
}

// killLeader kills a group's leader and returns it.
func (g *groupGround) killLeader(n int) *fleet.Node {
	g.t.Helper()
	var leader *fleet.Node
	await(g.t, "a leader", func() bool {
		st, err := g.heads[n].Status(g.ctx())
		node, found := g.clusters[n].Node(st.GetLeader())
		leader = node
		return err == nil && found && node.Alive()
	})
	if err := leader.Kill(); err != nil {
		g.t.Fatal(err)
	}
	return leader
}

func TestLeadersOfAllGroupsFallUnderLoad(t *testing.T) {
	g := startGroups(t)
	g.open()
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for worker := range 12 {
		work.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			for ctx.Err() == nil {
				banks := []string{"bank-a", "bank-b"}
				random.Shuffle(2, func(i, j int) { banks[i], banks[j] = banks[j], banks[i] })
				g.transfer(g.ctx(), banks[0], banks[1], random.IntN(groupAccounts), 1+random.IntN(groupMoney/5))
			}
		})
	}
	g.progress()
	for range 2 {
		var fallen []*fleet.Node
		for n := range groupCount { // all of them, before any has come back
			fallen = append(fallen, g.killLeader(n))
		}
		g.progress()
		for _, node := range fallen {
			if err := node.Start(); err != nil {
				t.Fatal(err)
			}
		}
		g.progress()
	}
	stop()
	work.Wait()
	g.oneOutcomeEach()
	g.moneyIsThere()
	g.refusedElsewhere()
	t.Logf("%d transactions, committed by group: %v", len(g.outcomes), g.committed())
}

// oneOutcomeEach asks for every txid again, at its own cluster, from the log.
func (g *groupGround) oneOutcomeEach() {
	g.t.Helper()
	for txid, told := range g.outcomes {
		r, err := g.groups.Inquire(g.ctx(), txid)
		if err != nil || r.Outcome != told {
			g.t.Errorf("%s was told as %s, and is %s (%v)", txid, told, r.Outcome, err)
		}
	}
}

// moneyIsThere holds that nothing is left prepared, that every account holds what the
// committed transactions make of it, and that the sum is what it was.
func (g *groupGround) moneyIsThere() {
	g.t.Helper()
	for n, head := range g.heads {
		for _, bank := range []string{"bank-a", "bank-b"} {
			await(g.t, "nothing prepared", func() bool {
				r, err := head.CheckParticipant(g.ctx(), bank)
				return err == nil && r.GetReachable() && r.GetPrepared() == 0
			})
		}
		st, err := head.Status(g.ctx())
		if err != nil || st.GetDamaged() != 0 {
			g.t.Errorf("group %d: %d damaged, %v", n+1, st.GetDamaged(), err)
		}
	}
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(g.balances)) {
		bank, key, _ := strings.Cut(name, " ")
		want := g.balances[name]
		sum += want
		op := map[string]any{"op": "check", "key": key, "min": want, "max": want}
		r, err := g.groups.Submit(g.ctx(), client.Transaction{Branches: []client.Branch{client.JSON(bank, map[string]any{"ops": []any{op}})}})
		if err != nil || r.Outcome != client.Committed {
			g.t.Errorf("%s does not hold %d: %s, %v", name, want, r.Reason, err)
		}
	}
	if want := 2 * groupAccounts * groupMoney; sum != want {
		g.t.Errorf("%d is there, want %d", sum, want)
	}
}

// refusedElsewhere sends what committed in one group to the two others, on purpose.
func (g *groupGround) refusedElsewhere() {
	g.t.Helper()
	home := map[int]string{}
	for txid, outcome := range g.outcomes {
		if outcome == client.Committed {
			home[groupOf(g.t, txid)] = txid
		}
	}
	for n, txid := range home {
		for other, head := range g.heads {
			if other == n {
				continue
			}
			g.refusedAt(head, g.clusters[other][0].Endpoint, g.httpOf(other), txid)
		}
		if r, err := g.groups.Inquire(g.ctx(), txid); err != nil || r.Outcome != client.Committed {
			g.t.Errorf("at home %s is %s (%v)", txid, r.Outcome, err)
		}
	}
}

func (g *groupGround) refusedAt(head *client.Client, endpoint, web, txid string) {
	g.t.Helper()
	branches := []client.Branch{client.JSON("bank-a", add("stolen", 1))}
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	for way, call := range map[string]func() error{
		"stream": func() error {
			_, err := head.Submit(g.ctx(), client.Transaction{TxID: txid, Branches: branches})
			return err
		},
		"interactive": func() error { _, err := head.BeginAs(g.ctx(), txid, time.Minute); return err },
		"enlist":      func() error { _, err := head.Resume(txid).Enlist(g.ctx(), branches[0]); return err },
		"abort":       func() error { _, err := head.Resume(txid).Abort(g.ctx(), ""); return err },
		"inquire":     func() error { _, err := head.Inquire(g.ctx(), txid); return err },
	} {
		if err := call(); !errors.Is(err, client.ErrOtherGroup) {
			g.t.Errorf("%s: %v", way, err)
		}
	}
	req := &decreev1.SubmitRequest{Txid: txid, Branches: []*decreev1.NewBranch{{Participant: "bank-a"}}}
	if _, err := decreev1.NewTransactionsClient(conn).Submit(g.ctx(), req); err == nil || !strings.Contains(err.Error(), "belongs to another group") {
		g.t.Errorf("unary: %v", err)
	}
	body := `{"txid":"` + txid + `","branches":[{"participant":"bank-a","json":{"ops":[]}}]}`
	answer, err := http.Post(web+"/v1/transactions", "application/json", strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusConflict || !strings.Contains(string(text), "TXID_OTHER_GROUP") {
		g.t.Errorf("HTTP: %s, %s (%v)", answer.Status, text, err)
	}
	if out, err := decree(g.t, "tx", "inquire", txid, "--endpoints="+endpoint); err == nil || !strings.Contains(out, "each cluster runs the transactions of its group only") {
		g.t.Errorf("the command: %s (%v)", out, err)
	}
}
