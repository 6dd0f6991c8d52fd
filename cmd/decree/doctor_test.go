package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// What is proven here: doctor finds what was broken, each time for real, says what to do,
// and finds nothing where all is well.

// diagnosed is what doctor found, by check and subject.
type diagnosed struct {
	ran
	findings map[string]struct{ Check, Subject, Result, Measured, Remedy string }
}

func diagnose(t *testing.T, args ...string) diagnosed {
	t.Helper()
	d := diagnosed{ran: run(t, nil, "", append([]string{"doctor", "-o", "json"}, args...)...)}
	var report struct {
		OK     bool
		Checks []struct{ Check, Subject, Result, Measured, Remedy string }
	}
	if err := json.Unmarshal([]byte(d.stdout), &report); err != nil {
		t.Fatalf("%v: %s%s", err, d.stdout, d.stderr)
	}
	if report.OK != (d.exit == exitOK) || d.stderr != "" {
		t.Errorf("ok is %v, exit %d, stderr %q", report.OK, d.exit, d.stderr)
	}
	d.findings = map[string]struct{ Check, Subject, Result, Measured, Remedy string }{}
	for _, c := range report.Checks {
		d.findings[strings.TrimSuffix(c.Check+" "+c.Subject, " ")] = c
		if (c.Result == "fail" || c.Result == "warn") && c.Remedy == "" {
			t.Errorf("%s %s: no remedy for: %s", c.Check, c.Subject, c.Measured)
		}
	}
	return d
}

// expect holds a finding's result and what is in its measure and remedy.
func (d diagnosed) expect(t *testing.T, what, result, in string) {
	t.Helper()
	f, found := d.findings[what]
	if !found || f.Result != result || !strings.Contains(f.Measured+" -> "+f.Remedy, in) {
		t.Errorf("%s: found %+v, want %s with %q in it; all:\n%s", what, f, result, in, d.stdout)
	}
}

// doctorArgs are a node's own flags, for doctor.
func (l lone) doctorArgs(more ...string) []string { return append(l.args()[1:], more...) }

func TestDoctorBeforeAndWhileANodeRuns(t *testing.T) {
	node := newLone(t)
	before := diagnose(t, node.doctorArgs()...)
	before.expect(t, "data "+node.dir, "ok", "does not exist yet")
	before.expect(t, "node n1", "ok", "does not run")
	before.expect(t, "port grpc-addr", "ok", node.grpc+" is free")
	before.expect(t, "participant", "skip", "no node answers")
	if before.exit != exitOK {
		t.Errorf("exit %d: %s", before.exit, before.stdout)
	}
	if _, err := os.Stat(node.dir); !os.IsNotExist(err) {
		t.Errorf("it made the data directory (%v)", err)
	}

	r := node.startAndLead(t)
	run(t, nil, "", "participant", "put", "dice", "--driver", "sim", "--endpoints", node.grpc)
	run(t, nil, "", "participant", "put", "mail", "--target", unusedAddress(t), "--endpoints", node.grpc)
	while := diagnose(t, node.doctorArgs()...)
	while.expect(t, "data "+node.dir, "ok", "in use")
	while.expect(t, "node n1", "ok", "runs: leader")
	while.expect(t, "port http-addr", "ok", "answers")
	while.expect(t, "api n1", "ok", "of cluster")
	while.expect(t, "version", "ok", "all run")
	while.expect(t, "participant dice", "skip", "in the nodes' own processes")
	while.expect(t, "participant mail", "fail", "refused")
	while.expect(t, "clock", "ok", "steady")
	if left, _ := filepath.Glob(filepath.Join(node.dir, ".decree-doctor-*")); len(left) > 0 {
		t.Errorf("it left %v", left)
	}

	// Another node's view of this one.
	stranger := newLone(t)
	seen := diagnose(t, stranger.doctorArgs("--node-id", "n9", "--peers", "n9="+stranger.raft+",n1="+node.raft)...)
	seen.expect(t, "peer n1", "fail", "does not know n9 -> admit this node: decree cluster add n9 "+stranger.raft)
	seen.expect(t, "clock n1", "ok", "give or take")
	swapped := diagnose(t, stranger.doctorArgs("--node-id", "n9", "--peers", "n9="+stranger.raft+",n2="+node.raft)...)
	swapped.expect(t, "peer n2", "fail", "node n1 answers at "+node.raft)
	taken := diagnose(t, stranger.doctorArgs("--raft-addr", node.raft, "--peers", "n1="+node.raft, "--node-id", "n1", "--http-addr", stranger.http)...)
	taken.expect(t, "port grpc-addr", "fail", "nobody answers at "+stranger.grpc)
	r.end()

	after := diagnose(t, node.doctorArgs()...)
	after.expect(t, "data "+node.dir, "ok", "node n1's, member")
	foreign := diagnose(t, node.doctorArgs("--node-id", "n2", "--peers", "n2="+node.raft)...)
	foreign.expect(t, "data "+node.dir, "fail", `is node "n1"'s, this is "n2"`)
	if err := os.Remove(filepath.Join(node.dir, "node.json")); err != nil {
		t.Fatal(err)
	}
	diagnose(t, node.doctorArgs()...).expect(t, "data "+node.dir, "fail", "do not delete anything")
}

func TestDoctorFindsAMachineUnfit(t *testing.T) {
	node := newLone(t)
	held, err := net.Listen("tcp", node.grpc)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	file := filepath.Join(t.TempDir(), "file")
	mustWrite(t, file, "")
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil { //nolint:gosec // the mistake to find
		t.Fatal(err)
	}
	nowhere := unusedAddress(t)
	tests := []struct {
		name, what, result, in string
		flags                  []string
	}{
		{"a mistake in the configuration", "config", "fail", "--log-level", []string{"--log-level", "loud"}},
		{"a port in use", "port grpc-addr", "fail", "another process listens at " + node.grpc, nil},
		{"an address of another machine", "port http-addr", "fail", "is not an address of this machine", []string{"--http-addr", "192.0.2.1:7201"}},
		{"a file for a directory", "data " + file, "fail", "is not a directory", []string{"--data-dir", file}},
		{"a directory for everybody", "data " + open, "warn", "chmod 700", []string{"--data-dir", open}},
		{"no data directory", "data", "skip", "--data-dir", []string{"--data-dir", ""}},
		{"peers before their first start", "peer n2", "warn", "start it", []string{"--peers", "n1=" + node.raft + ",n2=" + nowhere}},
		{"a peer that is down", "peer n2", "fail", "let TCP to " + nowhere, []string{"--data-dir", open, "--peers", "n1=" + node.raft + ",n2=" + nowhere}},
	}
	mustWrite(t, filepath.Join(open, "raft.db"), "a log without its node.json")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			diagnose(t, node.doctorArgs(tt.flags...)...).expect(t, tt.what, tt.result, tt.in)
		})
	}
	if runtime.GOOS == "linux" {
		t.Run("a directory in memory", func(t *testing.T) {
			diagnose(t, node.doctorArgs("--data-dir", "/dev/shm/decree-doctor-test")...).expect(t, "file system", "fail", "tmpfs is memory")
		})
		t.Run("a directory that cannot be made", func(t *testing.T) {
			diagnose(t, node.doctorArgs("--data-dir", "/proc/decree")...).expect(t, "data /proc/decree", "fail", "cannot be made")
		})
		t.Run("a full disk", func(t *testing.T) {
			disk := smallDisk(t, 8<<20)
			diagnose(t, node.doctorArgs("--data-dir", disk)...).expect(t, "space", "fail", "below --disk-headroom, 64 MiB")
		})
	}
}

// TestDoctorFindsADatabaseUnfit turns prepared transactions off under a participant that
// is registered.
func TestDoctorFindsADatabaseUnfit(t *testing.T) {
	databases.Require(t, databases.Postgres)
	server := databases.ForTest(t, databases.Postgres, databases.Options{})
	t.Setenv("ORDERS_DSN", server.DSN("postgres"))
	node := newLone(t)
	r := node.startAndLead(t)
	if put := run(t, nil, "", "participant", "put", "orders", "--driver", "postgres", "--dsn", "env:ORDERS_DSN", "--raw-sql", "--endpoints", node.grpc); put.exit != exitOK {
		t.Fatal(put.stderr)
	}
	diagnose(t, node.doctorArgs()...).expect(t, "participant orders", "ok", "reachable and fit")

	off := server.Exec(t.Context(), "postgres", "ALTER SYSTEM SET max_prepared_transactions = 0")
	if err := errors.Join(off, server.Stop(t.Context()), server.Restart(t.Context())); err != nil {
		t.Fatal(err)
	}
	unfit := diagnose(t, node.doctorArgs()...)
	unfit.expect(t, "participant orders", "fail", "set max_prepared_transactions")
	if unfit.exit != exitFailed {
		t.Errorf("exit %d", unfit.exit)
	}
	t.Setenv("ORDERS_DSN", "") // a shell that lacks the server's environment
	diagnose(t, node.doctorArgs()...).expect(t, "participant orders", "fail", "with the environment of the server")
	r.end()
}
