package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/decree-tx/decree/cmd/internal/bankday"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// What is proven here: the bank's command line. What the bank does is shown in
// cmd/internal/bankday.

func TestBankRefusesWhatItCannotRun(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"--workers", "0", "--accounts", "0", "--for", "-1s"}, []string{"workers 0", "accounts 0", "for -1s"}},
		{[]string{"--kill-leader-every", "1s"}, []string{"kill the leader every 1s"}},
		{[]string{"--faults", "leader,earthquake"}, []string{"--faults", `"earthquake"`, "partition"}},
		{[]string{"--faults", "all", "--fault-every", "1ms", "--kill-leader-every", "10s"}, []string{"a fault every 1ms", "where faults strike"}},
		{[]string{"--failovers", "3"}, []string{"failovers 3"}},
		{[]string{"--for", "many"}, []string{"want a duration"}},
		{[]string{"wallet"}, []string{"path"}},
	} {
		got := run(t, nil, "", append([]string{"bank"}, tt.args...)...)
		if got.exit != exitUsage {
			t.Errorf("bank %v: exit %d, want %d\n%s", tt.args, got.exit, exitUsage, got.stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(got.stderr, want) {
				t.Errorf("bank %v: no %q in %q", tt.args, want, got.stderr)
			}
		}
	}
}

// TestBankExitCode holds that a finding is a failure, whose text stdout has told.
func TestBankExitCode(t *testing.T) {
	err := &toldError{fmt.Errorf("%w: 3 findings", bankday.ErrWrong)}
	if got := exitCode(err); got != exitFailed || !errors.Is(err, bankday.ErrWrong) {
		t.Errorf("exit %d, want %d", got, exitFailed)
	}
}

func TestWalletNeedsItsPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := run(t, nil, "", "bank", "wallet", "--path", t.TempDir()+"/w.db", "--listen", l.Addr().String())
	if got.exit != exitFailed || !strings.Contains(got.stderr, "another process listens") {
		t.Errorf("exit %d: %s", got.exit, got.stderr)
	}
}

// TestBankTellsWhatToInstall holds that a machine without the servers is told how
// to get them.
func TestBankTellsWhatToInstall(t *testing.T) {
	if hint := hintFor(fmt.Errorf("start: %w", databases.ErrMissing)); !strings.Contains(hint, "test-databases.sh") {
		t.Errorf("hint %q", hint)
	}
}
