package main

// What a log costs: two-branch transfers through three decree nodes beside a
// client that does the same PREPARE and COMMIT PREPARED and keeps no log, against
// the same servers and tables, in rounds that alternate, so that what the machine
// does meanwhile is the same for both. Run it with
//
//	go test -run '^$' -bench Databases -timeout 30m ./cmd/decree
//
// It asserts nothing about time. Every round ends with a count of what was moved.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bank"
	"github.com/decree-tx/decree/cmd/internal/fleet"
	"github.com/decree-tx/decree/participants/participanttest/databases"
	"github.com/decree-tx/decree/transport/client"
)

const (
	// roundTime is how long one side runs before the other does.
	roundTime = 3 * time.Second
	// accountsOfWorker are each worker's own in every database, so that no two
	// transfers ever meet.
	accountsOfWorker = 1000
	mostWorkers      = 64
)

// BenchmarkDatabases compares throughput and latency.
func BenchmarkDatabases(b *testing.B) {
	w := startCompared(b)
	var apply float64
	b.Run("bare-apply", func(b *testing.B) {
		leader := bareRaft(b)
		var took []time.Duration
		for range 2000 {
			start := time.Now()
			if _, _, err := leader.Apply(make([]byte, 256)).Wait(context.Background()); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		report(b, took)
		apply = float64(took[len(took)/2]) / float64(time.Millisecond)
	})
	for _, pair := range [][2]string{{"ledger-a", "ledger-b"}, {"ledger-a", "cards"}} {
		for _, workers := range []int{1, 16, mostWorkers} {
			b.Run(fmt.Sprintf("%s+%s/workers=%d", pair[0], pair[1], workers), func(b *testing.B) {
				for b.Loop() {
					w.compare(b, pair, workers, apply)
				}
				b.ReportMetric(0, "ns/op") // a mean over rounds says nothing
			})
		}
	}
}

// compared is what both sides work on.
type compared struct {
	fleet   *fleet.Fleet
	cluster fleet.Cluster
	client  *client.Client
	servers map[string]*databases.Server
	offices map[string]bank.Office
	serial  atomic.Int64 // of the client's transactions
}

func startCompared(b *testing.B) *compared {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	f, err := fleet.New(fleet.Config{Binary: build(b, ""), Dir: b.TempDir()})
	must(err)
	b.Cleanup(func() {
		if b.Failed() {
			b.Log(f.Logs())
		}
		f.Close()
	})
	w := &compared{fleet: f, servers: map[string]*databases.Server{}, offices: map[string]bank.Office{}}
	port, err := fleet.FreePort(0)
	must(err)
	w.cluster, err = f.StartCluster(port)
	must(err)
	w.client, err = client.New(client.Config{Endpoints: w.cluster.Endpoints()})
	must(err)
	b.Cleanup(func() { w.client.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for name, engine := range map[string]databases.Engine{"ledger-a": databases.Postgres, "ledger-b": databases.Postgres, "cards": databases.MariaDB} {
		s := databases.ForTest(b, engine, databases.Options{})
		w.servers[name] = s
		must(s.Create(ctx, "bank"))
		secret := filepath.Join(f.Dir(), name+".dsn")
		must(os.WriteFile(secret, []byte(s.DSN("bank")), 0o600))
		open, fill := bank.NewPostgres, `INSERT INTO account SELECT 'a' || n, 1000000 FROM generate_series(0, %d) n; VACUUM ANALYZE account`
		if engine == databases.MariaDB {
			open, fill = bank.NewMariaDB, `INSERT INTO account SELECT CONCAT('a', seq), 1000000 FROM seq_0_to_%d; ANALYZE TABLE account`
		}
		office, err := open(ctx, bank.SQLConfig{Name: name, DSN: s.DSN("bank"), Reference: "file:" + secret})
		must(err)
		b.Cleanup(func() { office.Close() })
		w.offices[name] = office
		must(s.Exec(ctx, "bank", fmt.Sprintf(fill, mostWorkers*accountsOfWorker-1)))
		_, err = w.client.PutParticipant(ctx, office.Participant())
		must(err)
		for {
			found, err := w.client.CheckParticipant(ctx, name)
			must(err)
			if found.GetReachable() {
				break
			}
		}
	}
	return w
}

// transferer makes one transfer of one coin; it is one worker's.
type transferer func(ctx context.Context, accounts [2]string) error

// side is one of the two that are compared.
type side struct {
	name    string
	open    func(ctx context.Context) (run transferer, close func(), err error)
	took    []time.Duration
	seconds float64
	cpu     map[string]float64 // seconds, by whose
	entries uint64             // of the log
}

// compare runs the two sides in rounds: A B B A.
func (w *compared) compare(b *testing.B, pair [2]string, workers int, apply float64) {
	decree := &side{name: "decree", open: w.throughDecree(pair), cpu: map[string]float64{}}
	noLog := &side{name: "no log", open: w.withoutLog(pair), cpu: map[string]float64{}}
	warm := func(s *side) { w.round(b, &side{open: s.open, cpu: map[string]float64{}}, pair, workers, roundTime/3) }
	warm(decree)
	warm(noLog)
	for _, s := range []*side{decree, noLog, noLog, decree} {
		w.round(b, s, pair, workers, roundTime)
	}
	for _, s := range []*side{decree, noLog} {
		slices.Sort(s.took)
		word := strings.ReplaceAll(s.name, " ", "-")
		b.ReportMetric(s.rate(), word+"-tx/s")
		b.ReportMetric(s.quantile(50), word+"-p50-ms")
		b.ReportMetric(s.quantile(99), word+"-p99-ms")
		b.Logf("%s: %s", s.name, s.costs())
	}
	b.ReportMetric(100*decree.rate()/noLog.rate(), "%-of-no-log")
	if apply > 0 {
		b.ReportMetric((decree.quantile(50)-noLog.quantile(50))/apply, "p50-beyond/apply")
	}
}

func (s *side) rate() float64 { return float64(len(s.took)) / s.seconds }

// quantile wants took sorted.
func (s *side) quantile(percent int) float64 {
	return float64(s.took[len(s.took)*percent/100]) / float64(time.Millisecond)
}

// costs is the processor's time that each process took for a transfer.
func (s *side) costs() string {
	var all []string
	for _, name := range []string{"client", "leader", "followers", "ledger-a", "ledger-b", "cards"} {
		if spent := s.cpu[name]; spent > 0 {
			all = append(all, fmt.Sprintf("%s %.0fµs", name, 1e6*spent/float64(len(s.took))))
		}
	}
	return fmt.Sprintf("CPU for each transfer: %s; log entries for each: %.2f", strings.Join(all, ", "), float64(s.entries)/float64(len(s.took)))
}

// round lets the workers of a side run for a while, and checks that each transfer
// that was told to be done moved one coin.
func (w *compared) round(b *testing.B, s *side, pair [2]string, workers int, length time.Duration) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), length+patience)
	defer cancel()
	before := w.coins(b, pair)
	runs := make([]transferer, workers)
	for n := range runs {
		run, end, err := s.open(ctx)
		if err != nil {
			b.Fatal(err)
		}
		defer end()
		runs[n] = run
	}
	var mu sync.Mutex
	var failure error
	done := 0
	entries, spent, start := w.entries(), w.spent(), time.Now()
	var work sync.WaitGroup
	for n, run := range runs {
		work.Go(func() {
			took, err := workFor(ctx, run, n, start.Add(length))
			mu.Lock()
			defer mu.Unlock()
			s.took, done = append(s.took, took...), done+len(took)
			failure = errors.Join(failure, err)
		})
	}
	work.Wait()
	s.seconds += time.Since(start).Seconds()
	for name, total := range w.spent() {
		s.cpu[name] += total - spent[name]
	}
	s.entries += w.entries() - entries
	if failure != nil {
		b.Fatalf("%s: %v", s.name, failure)
	}
	after := w.coins(b, pair)
	if before[0]-after[0] != int64(done) || after[1]-before[1] != int64(done) {
		b.Fatalf("%s: %d transfers took %d from %s and gave %d to %s", s.name, done, before[0]-after[0], pair[0], after[1]-before[1], pair[1])
	}
}

// workFor makes transfers between the worker's own accounts until the time comes.
func workFor(ctx context.Context, transfer transferer, worker int, end time.Time) (took []time.Duration, err error) {
	for n := 0; time.Now().Before(end); n++ {
		account := "a" + strconv.Itoa(worker*accountsOfWorker+n%accountsOfWorker)
		start := time.Now()
		if err := transfer(ctx, [2]string{account, account}); err != nil {
			return took, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// coins are the sums of both databases.
func (w *compared) coins(b *testing.B, pair [2]string) (sums [2]int64) {
	b.Helper()
	for i, name := range pair {
		text, err := w.servers[name].Query(context.Background(), "bank", "SELECT SUM(balance) FROM account")
		if err == nil {
			sums[i], err = strconv.ParseInt(text, 10, 64)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return sums
}

func (w *compared) throughDecree(pair [2]string) func(context.Context) (transferer, func(), error) {
	return func(context.Context) (transferer, func(), error) {
		return func(ctx context.Context, accounts [2]string) error {
			o := bank.Order{Moves: []bank.Move{
				{Account: bank.Account{Bank: pair[0], Name: accounts[0]}, Amount: -1}, {Account: bank.Account{Bank: pair[1], Name: accounts[1]}, Amount: 1},
			}}
			r, err := w.client.Submit(ctx, o.Transaction(w.offices))
			if err != nil {
				return err
			}
			return r.Err()
		}, func() {}, nil
	}
}

func (w *compared) withoutLog(pair [2]string) func(context.Context) (transferer, func(), error) {
	return func(ctx context.Context) (transferer, func(), error) {
		c := &noLogClient{}
		for i, name := range pair {
			open := openNoLogPostgres
			if w.servers[name].Engine() == databases.MariaDB {
				open = openNoLogMariaDB
			}
			var err error
			if c.sides[i], err = open(ctx, w.servers[name].DSN("bank")); err != nil {
				return nil, nil, err
			}
		}
		return func(ctx context.Context, accounts [2]string) error {
			return c.transfer(ctx, fmt.Sprintf("nolog-%d", w.serial.Add(1)), accounts)
		}, c.close, nil
	}
}

// entries is how many the leader has applied so far. All rounds have one leader,
// or the count means nothing.
func (w *compared) entries() uint64 {
	status, err := w.client.Status(context.Background())
	if err != nil {
		return 0
	}
	return status.GetEntries()
}

// spent is the processor's time that each has used so far, in seconds.
func (w *compared) spent() map[string]float64 {
	var self syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &self)
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	all := map[string]float64{"client": seconds(self.Utime) + seconds(self.Stime)}
	leader := ""
	if status, err := w.client.Status(context.Background()); err == nil {
		leader = status.GetLeader()
	}
	for _, n := range w.cluster {
		name := "followers"
		if n.Name() == leader {
			name = "leader"
		}
		all[name] += processorTime(n.PID())
	}
	for name, s := range w.servers {
		all[name] = workingIn(filepath.Join(s.Dir(), "data"))
	}
	return all
}

// workingIn is the time of all processes that work in a directory.
func workingIn(dir string) (total float64) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		if at, err := os.Readlink(link); err == nil && at == dir {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			total += processorTime(pid)
		}
	}
	return total
}

// processorTime reads user and system time of a process, and of its children that
// have ended, from /proc.
func processorTime(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	var ticks float64
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.ParseFloat(field, 64)
		ticks += n
	}
	const ticksPerSecond = 100 // of every Linux that Go runs on
	return ticks / ticksPerSecond
}
