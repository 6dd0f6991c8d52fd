package main

// What clients do while tests restart and upgrade nodes under them: every kind of
// client that decree has, each of which keeps a list of what it was told.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // clients that follow it
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/types/known/structpb"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// traffic is clients at work. Each of their transactions puts one key into both
// banks, a key of its own, and is expected to commit: nothing is in its way.
type traffic struct {
	b    *bench
	stop context.CancelFunc
	work sync.WaitGroup

	mu        sync.Mutex
	committed map[string][]string // keys by kind of client; guarded by mu
	answered  map[string]int      // calls of the ordinary gRPC client, by node; guarded by mu
}

// streamers are the SDK clients that submit side by side, and so share a stream.
const streamers = 24

// startTraffic begins all of it, and returns once each kind has had an answer.
func (b *bench) startTraffic() *traffic {
	b.t.Helper()
	b.nothingPrepared() // the banks are there
	ctx, stop := context.WithCancel(b.t.Context())
	w := &traffic{b: b, stop: stop, committed: map[string][]string{}, answered: map[string]int{}}
	for i := range streamers {
		wait := client.Wait(i % 2) // until the delivery, or the decision
		w.client(ctx, fmt.Sprintf("sdk-%d", i), func(ctx context.Context, key string) error {
			return b.submit(ctx, b.client, key, wait)
		})
	}
	w.client(ctx, "interactive", b.interactive)
	for _, s := range b.servers {
		only := b.at(s) // a client of one node waits for it, and is forwarded
		w.client(ctx, "sdk-at-"+s.id, func(ctx context.Context, key string) error {
			return b.submit(ctx, only, key, client.WaitDelivery)
		})
	}
	conn := b.ordinaryGRPC()
	w.client(ctx, "grpc", func(ctx context.Context, key string) error { return w.call(ctx, conn, key) })
	if b.servers[0].http != "" {
		w.client(ctx, "http", b.balancedHTTP())
	}
	b.t.Cleanup(w.end) // before their connections go
	w.progress()
	return w
}

// call is one of the ordinary gRPC client.
func (w *traffic) call(ctx context.Context, conn *grpc.ClientConn, key string) error {
	var at peer.Peer
	answer, err := decreev1.NewTransactionsClient(conn).Submit(ctx, w.b.request(key), grpc.Peer(&at))
	switch {
	case err != nil:
		return err
	case answer.GetResult().GetOutcome() != decreev1.Outcome_OUTCOME_COMMITTED:
		return fmt.Errorf("the outcome is %s", answer.GetResult().GetOutcome())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered[at.Addr.String()]++
	return nil
}

// found returns once the ordinary gRPC client has had an answer from a node that it
// asked for after the call: until then it may take the node for dead, and the next
// one must not be stopped.
func (w *traffic) found(s *server) {
	w.b.t.Helper()
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.answered[s.grpc]
	}
	before := count()
	w.b.await("a client to find "+s.id, func(context.Context) bool { return count() > before+1 || w.b.t.Failed() })
}

// client does one transaction after another until ctx ends. The last is brought to
// its end.
func (w *traffic) client(ctx context.Context, name string, submit func(ctx context.Context, key string) error) {
	w.mu.Lock()
	w.committed[name] = nil
	w.mu.Unlock()
	w.work.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			key := fmt.Sprintf("%s/%d", name, n)
			within, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			err := submit(within, key)
			cancel()
			if err != nil {
				w.b.t.Errorf("%s: %v", key, err)
				return
			}
			w.mu.Lock()
			w.committed[name] = append(w.committed[name], key)
			w.mu.Unlock()
		}
	})
}

// progress returns once every client has committed something that it began after
// the call.
func (w *traffic) progress() {
	w.b.t.Helper()
	before := w.counts()
	w.b.await("progress of every client", func(context.Context) bool {
		if w.b.t.Failed() {
			w.b.t.FailNow()
		}
		for name, n := range w.counts() {
			if n < before[name]+2 { // the first may have begun earlier
				return false
			}
		}
		return true
	})
}

func (w *traffic) counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := make(map[string]int, len(w.committed))
	for name, keys := range w.committed {
		counts[name] = len(keys)
	}
	return counts
}

// end stops the clients and waits for them.
func (w *traffic) end() {
	w.stop()
	w.work.Wait()
}

// audit ends the traffic and looks into the banks: what was told as committed is
// there once, in both, and nothing is left prepared.
func (w *traffic) audit() {
	w.b.t.Helper()
	w.end()
	w.b.nothingPrepared()
	total := 0
	for _, keys := range w.committed {
		total += len(keys)
		w.b.holdsOnce(keys)
	}
	w.b.t.Logf("%d transactions, each told as committed and found once in both banks: %v", total, w.counts())
}

// auditBatch is how many keys a transaction of the audit looks at.
const auditBatch = 500

// holdsOnce votes no unless every key is in both banks with the value of one
// transaction.
func (b *bench) holdsOnce(keys []string) {
	b.t.Helper()
	for len(keys) > 0 {
		n := min(len(keys), auditBatch)
		var ops []any
		for _, key := range keys[:n] {
			ops = append(ops, map[string]any{"op": "check", "key": key, "min": 1, "max": 1})
		}
		checks := map[string]any{"ops": ops}
		b.mustCommit(client.JSON("bank-a", checks), client.JSON("bank-b", checks))
		keys = keys[n:]
	}
}

func (b *bench) submit(ctx context.Context, c *client.Client, key string, wait client.Wait) error {
	r, err := c.Submit(ctx, client.Transaction{
		Branches: []client.Branch{client.JSON("bank-a", add(key, 1)), client.JSON("bank-b", add(key, 1))}, Wait: wait,
	})
	return errors.Join(err, r.Err())
}

func (b *bench) interactive(ctx context.Context, key string) error {
	tx, err := b.client.Begin(ctx, 0)
	if err != nil {
		return err
	}
	for _, bank := range []string{"bank-a", "bank-b"} {
		if _, err := tx.Enlist(ctx, client.JSON(bank, add(key, 1))); err != nil {
			return err
		}
	}
	r, err := tx.Commit(ctx)
	return errors.Join(err, r.Err())
}

func (b *bench) request(key string) *decreev1.SubmitRequest {
	content := &decreev1.NewBranch_Json{Json: structpb.NewStructValue(mustStruct(b.t, add(key, 1)))}
	return &decreev1.SubmitRequest{Txid: mustTxID(b.t), Branches: []*decreev1.NewBranch{
		{Participant: "bank-a", Content: content}, {Participant: "bank-b", Content: content},
	}}
}

// ordinaryGRPC is a client that knows nothing of decree but what the gRPC libraries
// of most languages do when told: it goes round the nodes whose health is good, and
// sends nothing twice.
func (b *bench) ordinaryGRPC() *grpc.ClientConn {
	b.t.Helper()
	nodes := manual.NewBuilderWithScheme("nodes")
	var addresses []resolver.Address
	for _, s := range b.servers {
		addresses = append(addresses, resolver.Address{Addr: s.grpc})
	}
	nodes.InitialState(resolver.State{Addresses: addresses})
	conn, err := grpc.NewClient("nodes:///", grpc.WithResolvers(nodes), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}}),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}`))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

// balancedHTTP is a client behind a load balancer that asks for readiness, and goes to
// the next node, with the same txid, where a connection fails: one may lie in the queue
// of a node that takes no more.
func (b *bench) balancedHTTP() func(ctx context.Context, key string) error {
	// As curl: each request has a connection of its own.
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	turn := 0
	return func(ctx context.Context, key string) error {
		txid := mustTxID(b.t)
		for ctx.Err() == nil {
			s := b.servers[turn%len(b.servers)]
			turn++
			if !ready(ctx, web, s) {
				continue
			}
			err := b.post(ctx, web, s, txid, key)
			if _, cut := errors.AsType[*url.Error](err); !cut { // a refusal, a reset or an end before the answer
				return err
			}
		}
		return ctx.Err()
	}
}

func ready(ctx context.Context, web *http.Client, s *server) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.http+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := web.Do(req)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (b *bench) post(ctx context.Context, web *http.Client, s *server, txid, key string) error {
	body, err := json.Marshal(map[string]any{"txid": txid, "branches": []any{
		map[string]any{"participant": "bank-a", "json": add(key, 1)}, map[string]any{"participant": "bank-b", "json": add(key, 1)},
	}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.http+"/v1/transactions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := web.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	told, err := io.ReadAll(answer.Body)
	if err == nil && !strings.Contains(string(told), `OUTCOME_COMMITTED`) {
		err = fmt.Errorf("%s from %s: %s", answer.Status, s.id, told)
	}
	return err
}
