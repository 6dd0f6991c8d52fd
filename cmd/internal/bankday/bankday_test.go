package bankday

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/coordinator/history"
	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// What is proven here: a day at the bank over real database servers, nodes and
// services ends with every coin accounted for, also where leaders are killed
// meanwhile, and where nodes, databases, services and links fail (rules R1, R2, R5,
// R7, R8, R9, R10, R11 and R13, as one can see them who reads the databases); an
// audit that should fail does; and nothing is left behind however the day ends.

// binary is the released one: without cgo, race detector and failpoints.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "decree-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "decree")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "github.com/decree-tx/decree/cmd/decree")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s\n", err, out)
		return 1
	}
	return databases.Run(m)
}

// transcript is what a person sees; told is called with each line.
type transcript struct {
	mu   sync.Mutex
	b    bytes.Buffer
	told func(line string)
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.b.Write(p)
	s.mu.Unlock()
	if s.told != nil {
		s.told(string(p))
	}
	return len(p), nil
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// short is a day of a few seconds on ports of its own.
func short(t *testing.T, out *transcript) Config {
	t.Helper()
	databases.Require(t, databases.Postgres, databases.MariaDB)
	return Config{
		Binary: binary, Dir: t.TempDir(), For: 3 * time.Second, Workers: 8, Accounts: 20, Seed: 1, Out: out,
		// Other tests run beside this one: that 30s are enough is shown by make bank-chaos.
		recovery: 4 * patience,
	}
}

// nothingRuns holds that no process is left that works for the day.
func nothingRuns(t *testing.T, dir string) {
	t.Helper()
	processes, err := exec.Command("ps", "-e", "-o", "args=").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(processes), "\n") {
		if strings.Contains(line, dir) {
			t.Errorf("still runs: %s", line)
		}
	}
}

func logs(dir string) string {
	var all strings.Builder
	names, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, name := range names {
		if content, err := os.ReadFile(name); err == nil {
			fmt.Fprintf(&all, "\n%s:\n%s", filepath.Base(name), content[max(0, len(content)-4000):])
		}
	}
	return all.String()
}

func TestDay(t *testing.T) {
	out := &transcript{}
	cfg := short(t, out)
	result, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, logs(cfg.Dir))
	}
	t.Logf("\n%s", out)
	if !result.Passed || result.Findings != 0 || len(result.Checks) != 8 || result.Committed == 0 || result.Aborted == 0 || result.Unknown != 0 {
		t.Errorf("result %+v", result)
	}
	if result.AbortReasons[askedTooMuch] == 0 {
		t.Errorf("nobody asked for too much: %v", result.AbortReasons)
	}
	for _, want := range []string{
		"100 accounts are open, with 1000 each: 100000 in all",
		"ok     nodes      n1, n2, n3 tell the same",
		"ok     history    of ", "ok     branches ", "ok     heuristics none", "ok     prepared   nothing is left, ",
		"ok     money      100000, as at the start", "ok     meanwhile  in ", "PASSED",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if strings.Contains(out.String(), "in 0 looks") {
		t.Error("nobody looked into the books meanwhile")
	}
	nothingRuns(t, cfg.Dir)
}

// TestDayWithFailovers kills the leader under load, over TLS.
func TestDayWithFailovers(t *testing.T) {
	out := &transcript{}
	cfg := short(t, out)
	cfg.For, cfg.KillLeaderEvery, cfg.TLS = 2*minBetweenKills+time.Second, minBetweenKills, true
	result, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, logs(cfg.Dir))
	}
	t.Logf("\n%s", out)
	if !result.Passed || len(result.FailoversMS) == 0 || result.Unknown != 0 {
		t.Errorf("result %+v", result)
	}
	nothingRuns(t, cfg.Dir)
}

// seedOfAllKinds is a random seed whose first faults are of all kinds.
func seedOfAllKinds(first int) uint64 {
	for {
		seed := rand.Uint64()
		struck := map[Kind]bool{}
		for _, f := range drawn(first, seed, AllKinds(), time.Second) {
			struck[f.kind] = true
		}
		if len(struck) == len(AllKinds()) {
			return seed
		}
	}
}

// TestDayWithFaults has faults of all kinds strike, several at once. The seed says whether
// over TLS.
func TestDayWithFaults(t *testing.T) {
	out := &transcript{}
	cfg := short(t, out)
	cfg.For, cfg.Workers, cfg.Faults, cfg.FaultEvery = 12*time.Second, 12, AllKinds(), time.Second
	cfg.Seed = seedOfAllKinds(12)
	cfg.TLS = cfg.Seed%2 == 1
	result, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, logs(cfg.Dir))
	}
	t.Logf("\n%s", out)
	if !result.Passed || result.Failovers == 0 || len(result.Faults) < len(AllKinds())/2 || len(result.Checks) != 9 {
		t.Errorf("result %+v", result)
	}
	nothingRuns(t, cfg.Dir)
}

// TestDayClosesAfterFailovers holds that the number of failovers ends the day, that
// it is a failure to see too few, and that partitions make some.
func TestDayClosesAfterFailovers(t *testing.T) {
	out := &transcript{}
	cfg := short(t, out)
	cfg.For, cfg.Faults, cfg.FaultEvery, cfg.Failovers = time.Hour, []Kind{Partition}, time.Second, 2
	result, err := Run(t.Context(), cfg)
	if err != nil || result.Failovers < 2 || result.Seconds > time.Hour.Seconds()/2 {
		t.Fatalf("%v, %+v\n%s%s", err, result, out, logs(cfg.Dir))
	}
	d := &day{cfg: Config{Failovers: 3}}
	d.reigns.see(4)
	d.reigns.see(5)
	d.reigns.see(5)
	if c := d.auditFailovers(); c.found.Count != 1 || c.found.Texts[0] != "only 1, and 3 were asked for" {
		t.Errorf("too few are audited as %+v", c)
	}
}

// TestCutLinksAreFelt cuts a participant off from all nodes for longer than hasty
// clients wait: some of them learn no outcome, and learn it in the end.
func TestCutLinksAreFelt(t *testing.T) {
	out := &transcript{}
	cfg := short(t, out)
	cfg.For, cfg.Faults, cfg.FaultEvery = 3*hasty, []Kind{CutLink}, 3*hasty
	for {
		cfg.Seed = rand.Uint64()
		if f := newPlan(cfg.Seed, cfg.Faults, cfg.FaultEvery).next(); f.way == everyone && f.at < hasty/2 && f.lasts > 2*hasty {
			break
		}
	}
	result, err := Run(t.Context(), cfg)
	if err != nil || !result.Passed || result.Faults[CutLink] == 0 || result.Unknown == 0 {
		t.Errorf("%v, %+v\n%s%s", err, result, out, logs(cfg.Dir))
	}
}

// TestAuditFindsWhatIsLeftPrepared leaves something prepared in a database when the
// traffic is over, which nobody finishes.
func TestAuditFindsWhatIsLeftPrepared(t *testing.T) {
	out := &transcript{}
	cfg := short(t, out)
	cfg.For, cfg.recovery = time.Second, 2*time.Second
	out.told = func(line string) {
		if strings.Contains(line, "waiting until everything is delivered") {
			err := execute(t.Context(), cfg.Dir, "ledger-a", "BEGIN", "UPDATE account SET balance = balance WHERE id = 'account-01'", "PREPARE TRANSACTION 'left'")
			if err != nil {
				t.Error(err)
			}
		}
	}
	result, err := Run(t.Context(), cfg)
	if !errors.Is(err, ErrWrong) || result.Passed {
		t.Errorf("error %v, result %+v\n%s", err, result, out)
	}
	for _, want := range []string{
		`s after the end what ledger-a holds prepared is not known: ledger-a holds "left" prepared`,
		`WRONG  branches   ledger-a holds left, which is none of the cluster's`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	nothingRuns(t, cfg.Dir)
}

// execute runs statements on one connection to the database of an office.
func execute(ctx context.Context, dir, office string, statements ...string) error {
	dsn, err := os.ReadFile(filepath.Join(dir, office+".dsn"))
	if err != nil {
		return err
	}
	db, err := sql.Open("pgx", strings.TrimSpace(string(dsn)))
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, s := range statements {
		if _, err := c.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// TestForgedAnswerIsFound forges what the history says: an order that was committed
// was told to be aborted too. The judge finds it, and it can be looked at.
func TestForgedAnswerIsFound(t *testing.T) {
	h := history.NewRecorder()
	h.Begin(0, history.Run, "t1")(history.Committed, "", "")
	h.Begin(1, history.Run, "t1")(history.Aborted, "", "forged")
	d := &day{teller: &bank.Teller{Ledger: &bank.Ledger{}, History: h}}
	d.judge([]bank.NodeView{{Node: "n1"}}, nil)
	i := slices.IndexFunc(d.report(bank.Findings{}), func(c check) bool { return c.what == "history" && c.found.Count == 1 })
	if i < 0 {
		t.Fatal("the audit did not find it")
	}
	dir := t.TempDir()
	if _, err := d.evidence.save(dir, "decree bank --seed 7"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"history.jsonl": `"note":"forged"`, "replay.txt": "--seed 7", "t1.html": "aborted"} {
		text, err := os.ReadFile(filepath.Join(dir, "history", name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("no %q in %s (%v)", want, name, err)
		}
	}
}

// TestAuditFails steals a coin from a database when the traffic is over.
func TestAuditFails(t *testing.T) {
	out := &transcript{}
	cfg := short(t, out)
	cfg.For = time.Second
	out.told = func(line string) {
		if strings.Contains(line, "waiting until everything is delivered") {
			err := execute(t.Context(), cfg.Dir, "ledger-b", `UPDATE account SET balance = balance - 1 WHERE id = (SELECT id FROM account WHERE balance > 0 LIMIT 1)`)
			if err != nil {
				t.Error(err)
			}
		}
	}
	result, err := Run(t.Context(), cfg)
	if !errors.Is(err, ErrWrong) || result.Passed || result.Findings != 2 {
		t.Errorf("error %v, result %+v\n%s", err, result, out)
	}
	for _, want := range []string{"WRONG  money      there are 99999 coins, 100000 were put in", "FAILED: 2 findings", "data and logs of the nodes are in " + cfg.Dir} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	story, err := os.ReadFile(filepath.Join(cfg.Dir, "evidence.txt"))
	for _, want := range []string{"order ", "node n2 has ", "books of ledger-b: account account-07: ", "books of cards: branch "} {
		if err != nil || !strings.Contains(string(story), want) {
			t.Errorf("no %q in the evidence (%v)", want, err)
		}
	}
	nothingRuns(t, cfg.Dir)
}

// TestStopped stops the day at several moments, as ctrl-C does. Once money has
// moved, it is audited.
func TestStopped(t *testing.T) {
	for moment, audited := range map[string]bool{"starting PostgreSQL": false, "they run": false, "workers move money": true, "fault 1: ": true} {
		t.Run(moment, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := &transcript{told: func(line string) {
				if strings.Contains(line, moment) {
					cancel()
				}
			}}
			cfg := short(t, out)
			cfg.For = time.Hour
			if moment == "fault 1: " { // which is taken back, long before its time
				cfg.Faults, cfg.FaultEvery = []Kind{HangDatabase}, minFaultEvery
			}
			result, err := Run(ctx, cfg)
			if audited && (err != nil || !result.Passed) || !audited && !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, result %+v\n%s%s", err, result, out, logs(cfg.Dir))
			}
			nothingRuns(t, cfg.Dir)
		})
	}
}

// TestKilledOutright kills the whole bank with SIGKILL and finds neither processes
// nor files of it.
func TestKilledOutright(t *testing.T) {
	databases.Require(t, databases.Postgres, databases.MariaDB)
	// Its path is short enough for sockets, and open to the servers' accounts.
	home, err := os.MkdirTemp("/tmp", "decree-bank-test-")
	if err == nil {
		err = os.Chmod(home, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	cmd := exec.Command(binary, "bank", "--for", "1h", "--workers", "2", "--accounts", "5")
	cmd.Env = append(os.Environ(), "TMPDIR="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	moving := make(chan struct{})
	var once sync.Once
	out := &transcript{told: func(text string) {
		if strings.Contains(text, "workers move money") {
			once.Do(func() { close(moving) })
		}
	}}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	select {
	case <-moving:
	case <-ended:
		t.Fatalf("it ended:\n%s", out)
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = poll(ctx, "an empty directory", func() (bool, error) {
		left, err := os.ReadDir(home)
		return len(left) == 0, err
	})
	if err != nil {
		left, _ := filepath.Glob(filepath.Join(home, "*", "*"))
		t.Errorf("%v: %v", err, left)
	}
	nothingRuns(t, home)
}
