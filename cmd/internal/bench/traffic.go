package bench

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/decree-tx/decree/transport/client"
)

// callPatience bounds one transaction. A failover takes about a second; a call that
// takes this long has failed in any user's eyes.
const callPatience = 30 * time.Second

// traffic makes transactions and hands them to the cluster, as a user's program
// would. It is safe for concurrent use.
type traffic struct {
	clients  []*client.Client
	wait     client.Wait
	branches int
	names    []string // of the participants
	payload  func(n uint64, branch int) []byte
}

// run is the n-th transaction.
func (t *traffic) run(ctx context.Context, n uint64) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	r, err := t.clients[n%uint64(len(t.clients))].Submit(ctx, t.transaction(n))
	switch {
	case err != nil:
		return failed, err
	case r.Outcome == client.Aborted:
		return aborted, nil
	case r.Damage != client.NoDamage:
		return failed, r.Err()
	default:
		return committed, nil
	}
}

// transaction is the n-th. Its branches lie at participants next to one another,
// beginning at another one each time.
func (t *traffic) transaction(n uint64) client.Transaction {
	tx := client.Transaction{Wait: t.wait, Branches: make([]client.Branch, t.branches)}
	first := n * uint64(t.branches)
	for i := range tx.Branches {
		name := t.names[(first+uint64(i))%uint64(len(t.names))]
		tx.Branches[i] = client.Bytes(name, t.payload(n, i))
	}
	return tx
}

// trivialPayloads are bytes of no meaning.
func trivialPayloads(size int) func(uint64, int) []byte {
	yes := []byte(strings.Repeat("y", size))
	return func(uint64, int) []byte { return yes }
}

// kvKeys is how many keys the kv traffic writes: so many that no two transactions
// under way meet, and few enough that a store stays small.
const kvKeys = 1_000_000

// kvPayloads put a value of its own under a key of its own.
func kvPayloads(size int) func(uint64, int) []byte {
	const form = `{"ops":[{"op":"put","key":"k%06d-%02d","value":"%s"}]}`
	value := strings.Repeat("v", max(size-len(fmt.Sprintf(form, 0, 0, "")), 0))
	return func(n uint64, branch int) []byte {
		return fmt.Appendf(nil, form, n%kvKeys, branch, value)
	}
}

// names are those of the participants that the bench registers.
func names(count int) []string {
	all := make([]string, count)
	for i := range all {
		all[i] = "bench-" + strconv.Itoa(i+1)
	}
	return all
}
