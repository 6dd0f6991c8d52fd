package kv

// R7, R8 and R9 through kill -9: whatever a process acknowledged before it was
// killed in the middle of its work is in the file when the next one opens it.

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/fsm/txn"
	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/participanttest"
)

const victimVariable = "KV_VICTIM_PATH"

// What the victim says about a branch, one line each: before it asks for an end,
// and after every acknowledgement.
const (
	saysYes       = "yes"       // prepared
	saysEnding    = "ending"    // about to commit or abort
	saysCommitted = "committed" // acknowledged
	saysAborted   = "aborted"   // acknowledged
	enough        = 400         // lines until the victim is killed
	kills         = 5           // of a victim over the same file
	victimCrowd   = 16          // callers in the victim
)

func TestAcknowledgedSurvivesKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	said := map[txn.TxID]string{}
	for range kills {
		listen(t, path, said)
		settleAccounts(t, path, said)
	}
}

// listen runs a victim, kills it in the middle of its work, and notes the last
// that it said about each branch.
func listen(t *testing.T, path string, said map[txn.TxID]string) {
	t.Helper()
	victim := exec.Command(os.Args[0], "-test.run=^TestVictim$")
	victim.Env = append(os.Environ(), victimVariable+"="+path)
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for scan := bufio.NewScanner(out); scan.Scan(); lines++ {
		if lines == enough {
			if err := victim.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		word, id, ok := strings.Cut(scan.Text(), " ")
		txid, err := txn.ParseTxID(id)
		if !ok || err != nil {
			continue // cut off by the kill
		}
		said[txid] = word
	}
	if err := victim.Wait(); err == nil || lines < enough {
		t.Fatalf("the victim ended by itself after %d lines: %v", lines, err)
	}
}

// settleAccounts holds the file against what was said, and commits what waits.
func settleAccounts(t *testing.T, path string, said map[txn.TxID]string) {
	t.Helper()
	s := openStore(t, path)
	defer s.Close() //nolint:errcheck // openStore closes it too, and looks
	balanced(t, s)
	list, err := s.Recover(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	waits := map[txn.TxID]bool{}
	for _, b := range list {
		waits[b.TxID] = true
	}
	for id, word := range said {
		b := participants.Branch{Cluster: "c", TxID: id, Number: 1}
		got, err := s.Status(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]participants.Status{
			saysYes:       participants.StatusPrepared,
			saysCommitted: participants.StatusCommitted,
			saysAborted:   participants.StatusAborted,
			saysEnding:    got, // either
		}[word]
		if got != want || got == participants.StatusUnknown || waits[id] != (got == participants.StatusPrepared) {
			t.Errorf("the last word on %s was %q; it is %s, listed: %v", id, word, got, waits[id])
		}
	}
	for _, b := range list {
		b.Epoch = 2 // of the leader that follows
		if err := s.Commit(t.Context(), b); err != nil {
			t.Errorf("commit after the crash: %v", err)
		}
		said[b.TxID] = saysCommitted
	}
	if n := len(s.locks); n != 0 {
		t.Errorf("%d keys are locked when nothing waits", n)
	}
	balanced(t, s)
}

// balanced wants every transfer done as a whole or not at all.
func balanced(t *testing.T, s *Store) {
	t.Helper()
	err := s.Read(t.Context(), func(at Snapshot) error {
		sum, err := at.Sum("")
		if err == nil && sum != 0 {
			err = fmt.Errorf("the accounts hold %d, want 0", sum)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestVictim is the process that is killed.
func TestVictim(t *testing.T) {
	path := os.Getenv(victimVariable)
	if path == "" {
		t.Skip("run by TestAcknowledgedSurvivesKill")
	}
	s, err := Open(t.Context(), path, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	say := func(word string, b participants.Branch) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(os.Stdout, word, b.TxID) //nolint:errcheck // the parent counts lines
	}
	var all sync.WaitGroup
	for range victimCrowd {
		all.Go(func() {
			for n := 0; ; n++ {
				b := transfer()
				if v, err := s.Prepare(t.Context(), b); err != nil || v.Kind != txn.VoteCommit {
					t.Error(v, err)
					return
				}
				say(saysYes, b)
				end, word := s.Commit, saysCommitted
				switch n % 3 {
				case 0:
					continue // it waits
				case 1:
					end, word = s.Abort, saysAborted
				}
				say(saysEnding, b)
				if err := end(t.Context(), b); err != nil {
					t.Error(err)
					return
				}
				say(word, b)
			}
		})
	}
	all.Wait()
}

// transfer moves money between two accounts that nobody else has.
func transfer() participants.Branch {
	id := participanttest.NewTxID(txn.Time(time.Now().UnixNano()))
	b := branch(fmt.Sprintf(`{"op": "add", "key": "%[1]s/from", "amount": -5}, {"op": "add", "key": "%[1]s/to", "amount": 5}`, id))
	b.TxID = id
	b.Epoch = 2
	return b
}
