package bench

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bench/trivial"
	"github.com/decree-tx/decree/transport/client"
)

// callPatience bounds one transaction. A failover takes about a second; a call that
// takes this long has failed in any user's eyes.
const callPatience = 30 * time.Second

// traffic makes transactions and hands them to the cluster, as a user's program
// would. It is safe for concurrent use.
type traffic struct {
	clients         []submitter
	wait            client.Wait
	branches        int
	abort, readOnly float64  // shares of transactions
	names           []string // of the participants
	payload         payloads
}

// payloads makes the payload of a branch of the n-th transaction, which is at the
// participant of that place among the names, for a vote.
type payloads func(n uint64, branch, participant int, v vote) []byte

// vote is what a branch is to say.
type vote uint8

const (
	yes vote = iota
	no
	readOnly
)

func newTraffic(cfg Config, clients []submitter) *traffic {
	t := &traffic{
		clients: clients, wait: cfg.Wait, branches: cfg.Branches, abort: cfg.Abort, readOnly: cfg.ReadOnly,
		names: names(cfg.ParticipantsCount), payload: trivialPayloads(cfg.Payload),
	}
	switch {
	case len(cfg.Targets) > 0:
		t.names = nil
		for _, target := range cfg.Targets {
			t.names = append(t.names, target.Participant)
		}
		t.payload = targetPayloads(cfg.Targets)
	case cfg.Participants == KV:
		t.payload = kvPayloads(cfg.Payload)
	}
	return t
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
	kind := t.kind(n)
	for i := range tx.Branches {
		place := int((first + uint64(i)) % uint64(len(t.names))) //nolint:gosec // below 64
		v := kind
		if kind == no && i < t.branches-1 {
			v = yes // one no is enough, and the others have to be undone
		}
		tx.Branches[i] = client.Bytes(t.names[place], t.payload(n, i, place, v))
	}
	return tx
}

// kind is how the n-th transaction ends: chance by its number, so that every run has
// the same ones.
func (t *traffic) kind(n uint64) vote {
	switch chance := fraction(n); {
	case chance < t.abort:
		return no
	case chance < t.abort+t.readOnly:
		return readOnly
	default:
		return yes
	}
}

// fraction spreads numbers evenly from 0 to 1 (splitmix64).
func fraction(n uint64) float64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return float64((n^n>>31)>>11) / (1 << 53)
}

// trivialPayloads are bytes of no meaning but the first.
func trivialPayloads(size int) payloads {
	of := func(first byte) []byte { return append([]byte{first}, strings.Repeat(".", size-1)...) }
	all := [...][]byte{yes: of('y'), no: of(trivial.VoteNo), readOnly: of(trivial.VoteReadOnly)}
	return func(_ uint64, _, _ int, v vote) []byte { return all[v] }
}

// kvKeys is how many keys the kv traffic writes: so many that no two transactions
// under way meet, and few enough that a store stays small.
const kvKeys = 1_000_000

// kvPayloads put a value of its own under a key of its own. A check of a key that is
// never written is the no, or has nothing to do.
func kvPayloads(size int) payloads {
	const form = `{"ops":[{"op":"put","key":"k%06d-%02d","value":"%s"}]}`
	value := strings.Repeat("v", max(size-len(fmt.Sprintf(form, 0, 0, "")), 0))
	return func(n uint64, branch, _ int, v vote) []byte {
		switch v {
		case no:
			return []byte(`{"ops":[{"op":"check","key":"never","value":"written"}]}`)
		case readOnly:
			return []byte(`{"ops":[{"op":"check","key":"never","absent":true}]}`)
		default:
			return fmt.Appendf(nil, form, n%kvKeys, branch, value)
		}
	}
}

// targetPayloads are those that the user gave.
func targetPayloads(targets []Target) payloads {
	return func(n uint64, _, participant int, _ vote) []byte {
		return []byte(strings.ReplaceAll(targets[participant].Payload, "{n}", strconv.FormatUint(n, 10)))
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
