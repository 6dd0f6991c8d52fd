package databases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Engine is a kind of database server.
type Engine uint8

// The engines.
const (
	Postgres Engine = iota + 1
	MariaDB
)

func (e Engine) String() string {
	switch e {
	case Postgres:
		return "PostgreSQL"
	case MariaDB:
		return "MariaDB"
	default:
		return fmt.Sprintf("invalid(%d)", e)
	}
}

// Options are what may differ from server to server. The zero Options are a good
// choice.
type Options struct {
	// Dir is the server's directory, which must be empty or not there, and is
	// removed at the end. Empty means a new one under os.TempDir. Its path is at
	// most MaxDir bytes long, and the user that the server runs as must be able to
	// reach it.
	Dir string
	// Settings of the server's configuration file, over those of this package:
	// max_prepared_transactions: "0".
	Settings map[string]string
	// Port is one of 127.0.0.1 on which the server listens too, so that something may
	// stand between it and its clients; 0 is none. Whoever can reach it is let in.
	Port int
}

// MaxDir bounds Options.Dir in bytes: the path of a unix socket in it has to fit
// into the 107 bytes that the system has for one.
const MaxDir = 85

// ErrMissing is the error of Start when this machine lacks a program that the
// server needs.
var ErrMissing = errors.New("database programs are missing")

const (
	// startBound is how long an installation may take, and how long a server may
	// take to be ready: enough for a recovery after a kill, on a machine that is
	// busy with other tests.
	startBound = 60 * time.Second
	// pollEvery is how often a starting server is looked at.
	pollEvery = 5 * time.Millisecond
	// logTail is how much of a server's log goes into an error, in bytes.
	logTail = 4096
)

// Server is one throwaway server. Its methods may be called from many goroutines;
// those that change its state wait for each other.
type Server struct {
	engine  engine
	kind    Engine
	account account
	dir     string // holds data, the sockets, the log
	guard   *guard

	mu     sync.Mutex // guards what follows
	run    *process   // nil before the first start
	closed bool
}

// process is one run of the server.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed once it is reaped; err is set before
	err    error
}

func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Start starts a server of its own and returns when it takes connections. The
// context bounds the start only. The caller closes the server.
func Start(ctx context.Context, e Engine, o Options) (*Server, error) {
	s, err := start(ctx, e, o)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", e, err)
	}
	return s, nil
}

func start(ctx context.Context, e Engine, o Options) (*Server, error) {
	engine, err := find(e, o.Port)
	if err != nil {
		return nil, err
	}
	account, err := serverAccount(e)
	if err != nil {
		return nil, err
	}
	s := &Server{engine: engine, kind: e, account: account}
	if s.dir, err = makeDir(o.Dir, account); err != nil {
		return nil, err
	}
	if s.guard, err = post(s.dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	// From here on the guard removes what is there, whatever happens.
	if err := s.furnish(ctx, o.Settings); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.Restart(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// makeDir makes the server's directory and gives it to the server's account.
func makeDir(dir string, a account) (string, error) {
	if dir == "" {
		parent := os.TempDir()
		if len(parent) > MaxDir-len("/decree-db-4294967295") {
			parent = "/tmp"
		}
		made, err := os.MkdirTemp(parent, "decree-db-")
		if err != nil {
			return "", err
		}
		dir = made
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if len(dir) > MaxDir {
		return "", fmt.Errorf("directory %s: %d bytes are too long for a socket's path, want at most %d", dir, len(dir), MaxDir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("directory %s is not empty", dir)
	}
	return dir, a.own(dir)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }
func (s *Server) log() string  { return filepath.Join(s.dir, "log") }

// furnish fills the data directory and writes the configuration.
func (s *Server) furnish(ctx context.Context, settings map[string]string) error {
	if err := fill(ctx, s); err != nil {
		return err
	}
	path, text := s.engine.configuration(s.dir, settings)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return s.account.own(path)
}

// Engine is the server's kind.
func (s *Server) Engine() Engine { return s.kind }

// Dir is the server's directory: its sockets are in it, and its log as "log".
func (s *Server) Dir() string { return s.dir }

// DSN is how the superuser reaches a database of the server: for PostgreSQL in
// the form of libpq, which pgx takes too, for MariaDB in that of go-sql-driver.
// There is no password.
func (s *Server) DSN(database string) string { return s.engine.dsn(s.dir, database) }

// DSNAt is DSN through an address of loopback, host:port: the server's own, where
// it has a port, or that of a proxy before it.
func (s *Server) DSNAt(address, database string) string { return s.engine.dsnAt(address, database) }

// Create makes a database, of a name of lower-case letters, digits and
// underscores.
func (s *Server) Create(ctx context.Context, database string) error {
	if strings.Trim(database, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || database == "" {
		return fmt.Errorf("create database %q: want lower-case letters, digits and underscores", database)
	}
	return s.Exec(ctx, "", "CREATE DATABASE "+database)
}

// Exec runs SQL as the superuser through the server's own client program: any
// number of statements, each in a transaction of its own, up to the first that
// fails. An empty database stands for the engine's own.
func (s *Server) Exec(ctx context.Context, database, sql string) error {
	_, err := s.Query(ctx, database, sql)
	return err
}

// Query is Exec that returns the rows, one a line, columns separated by tabs.
func (s *Server) Query(ctx context.Context, database, sql string) (string, error) {
	cmd := s.engine.client(ctx, s.dir, database)
	cmd.Env = environment()
	cmd.Stdin = strings.NewReader(sql)
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", s.kind, errors.Join(err, ctx.Err()), strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// environment is that of all programs started here: nothing that the user set
// for the clients and servers of their own.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
}

var errClosed = errors.New("the server is closed")

// Restart starts the server again, on the same data and socket, after Kill or
// Stop, and returns when it takes connections.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.run != nil && s.run.alive():
		return errors.New("the server is running")
	}
	s.engine.sweep(s.dir)
	run, err := s.launch()
	if err != nil {
		return err
	}
	s.run = run
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	if err := s.awaitReady(ctx, run); err != nil {
		return errors.Join(err, s.kill())
	}
	return nil
}

// launch starts the server's process. The guard knows it by its working
// directory, which is set before the program begins.
func (s *Server) launch() (*process, error) {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := s.engine.server(s.dir)
	cmd.Dir, cmd.Env = s.data(), environment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = s.account.process()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		p.err = cmd.Wait()
	}()
	return p, nil
}

func (s *Server) awaitReady(ctx context.Context, run *process) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !s.engine.ready(s.dir, run.cmd.Process.Pid) {
		select {
		case <-tick.C:
		case <-run.exited:
			return fmt.Errorf("the server ended: %v; its log ends so:\n%s", run.err, s.Log())
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready: %w; its log ends so:\n%s", ctx.Err(), s.Log())
		}
	}
	return nil
}

// Log is the end of what the server has written to its log.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-logTail):])
}

// running is the server's run, or an error. The caller has mu.
func (s *Server) running() (*process, error) {
	switch {
	case s.closed:
		return nil, errClosed
	case s.run == nil || !s.run.alive():
		return nil, errors.New("the server is not running")
	}
	return s.run, nil
}

// Kill ends all the server's processes at once with SIGKILL, as a crash of its
// machine would, except that writes which were not synced stay: they are in the
// system's cache, which outlives the server. That they would be synced is a matter
// of its settings, which promise it.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.running(); err != nil {
		return err
	}
	return s.kill()
}

// kill wants mu.
func (s *Server) kill() error {
	if err := s.guard.tell("kill"); err != nil {
		return err
	}
	<-s.run.exited
	return nil
}

// Stop ends the server cleanly: clients are disconnected, prepared transactions
// stay. It waits until the server has ended, or the context, which leaves it
// stopping.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	run, err := s.running()
	if err != nil {
		return err
	}
	if err := run.cmd.Process.Signal(s.engine.stopSignal()); err != nil {
		return err
	}
	select {
	case <-run.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the server has not stopped: %w", ctx.Err())
	}
}

// Suspend stops all the server's processes with SIGSTOP, as a hung machine
// would: connections stay and nobody answers.
func (s *Server) Suspend() error { return s.signal("suspend") }

// Resume lets a suspended server go on.
func (s *Server) Resume() error { return s.signal("resume") }

func (s *Server) signal(order string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.running(); err != nil {
		return err
	}
	return s.guard.tell(order)
}

// Close kills the server and removes its directory. A second Close does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.guard.dismiss()
	if s.run != nil {
		<-s.run.exited
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
