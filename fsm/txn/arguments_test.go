package txn_test

import (
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/decree-tx/decree/fsm/txn"
)

// What the directives of a transcript say; see TestTranscripts.

// id stands for a name: its time is when the name was first used.
func (s *theatre) id(t *testing.T, name string, d *datadriven.TestData) txn.TxID {
	t.Helper()
	if id, ok := s.ids[name]; ok {
		return id
	}
	made := s.clock
	if v, ok := value(d, "made"); ok {
		made = beginning.Add(duration(t, v))
	}
	s.ids[name] = newID(made, byte(len(s.ids)+1))
	return s.ids[name]
}

func newID(at txn.Time, n byte) (id txn.TxID) {
	ms := int64(at) / int64(time.Millisecond)
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6], id[8], id[15] = 0x70, 0x80, n
	return id
}

func branches(d *datadriven.TestData) (list []txn.Branch) {
	for _, arg := range d.CmdArgs {
		if arg.Key == "branches" {
			for _, p := range arg.Vals {
				list = append(list, txn.NewBranch(p, []byte("work for "+p)))
			}
		}
	}
	return list
}

func votes(t *testing.T, d *datadriven.TestData) (list []txn.BranchVote) {
	t.Helper()
	kinds := map[string]txn.Vote{"none": txn.VoteNone, "commit": txn.VoteCommit, "read-only": txn.VoteReadOnly, "abort": txn.VoteAbort}
	for _, arg := range d.CmdArgs {
		if arg.Key == "votes" {
			for _, v := range arg.Vals {
				branch, kind, _ := strings.Cut(v, ":")
				list = append(list, txn.BranchVote{Branch: atoi(t, branch), Vote: kinds[kind]})
			}
		}
	}
	return list
}

func receipts(t *testing.T, d *datadriven.TestData) (list []txn.BranchReceipt) {
	t.Helper()
	kinds := []string{"none", "done", "heuristic-commit", "heuristic-abort", "heuristic-hazard"}
	receipt := txn.Done
	if v, ok := value(d, "receipt"); ok {
		receipt = txn.Receipt(slices.Index(kinds, v))
	}
	for _, arg := range d.CmdArgs {
		if arg.Key == "branch" {
			for _, v := range arg.Vals {
				list = append(list, txn.BranchReceipt{Branch: atoi(t, v), Receipt: receipt})
			}
		}
	}
	return list
}

func decision(t *testing.T, id txn.TxID, d *datadriven.TestData) txn.Decide {
	t.Helper()
	c := txn.Decide{ID: id, Decision: txn.Commit, Branches: branches(d)}
	if d.HasArg("abort") {
		c.Decision = txn.Abort
		c.Reason = txn.Reason{Code: txn.ReasonClient}
		if len(c.Branches) > 0 {
			c.Reason.Code = txn.ReasonRefused
		}
	}
	for _, arg := range d.CmdArgs {
		if arg.Key == "read-only" {
			for _, v := range arg.Vals {
				c.ReadOnly = append(c.ReadOnly, atoi(t, v))
			}
		}
	}
	return c
}

func value(d *datadriven.TestData, key string) (string, bool) {
	for _, arg := range d.CmdArgs {
		if arg.Key == key && len(arg.Vals) > 0 {
			return arg.Vals[0], true
		}
	}
	return "", false
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
