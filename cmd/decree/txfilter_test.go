package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// What is proven here: the choices of tx list that the command makes itself, by the
// time in a txid.

// txidAt is a txid of a time.
func txidAt(t time.Time, n int) string {
	ms := fmt.Sprintf("%012x", t.UnixMilli())
	return fmt.Sprintf("%s-%s-7000-8000-%012x", ms[:8], ms[8:], n)
}

func TestListByTime(t *testing.T) {
	now := time.Now()
	var all []*decreev1.Transaction
	for i, age := range []time.Duration{time.Minute, 5 * time.Minute, time.Hour, 48 * time.Hour} {
		all = append(all, &decreev1.Transaction{Txid: txidAt(now.Add(-age), i)})
	}
	for _, tt := range []struct {
		flags, want string // the numbers of those listed
	}{
		{"", "0123"},
		{"--since 10m", "01"},
		{"--before 10m", "23"},
		{"--since 2h --before 2m", "12"},
		{"--since " + now.Add(-30*time.Minute).UTC().Format(time.RFC3339), "01"},
		{"--since 2s", ""},
	} {
		got := run(t, &fakeNode{list: all}, "", strings.Fields("tx list -q "+tt.flags)...)
		numbers := ""
		for line := range strings.Lines(got.stdout) {
			numbers += line[35:36]
		}
		if got.exit != exitOK || numbers != tt.want {
			t.Errorf("%q: exit %d, listed %q, want %q; %s", tt.flags, got.exit, numbers, tt.want, got.stderr)
		}
	}
}

func TestListUnfinished(t *testing.T) {
	node := &fakeNode{}
	run(t, node, "", "tx", "list", "--unfinished")
	if states := asked[*decreev1.ListRequest](t, node).GetStates(); len(states) != 4 {
		t.Errorf("asked for %v, want the four states that still have work", states)
	}
}
