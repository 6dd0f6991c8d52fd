package databases

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// postgresSettings are for tests of a coordinator: real durability, much at once,
// little memory.
var postgresSettings = map[string]string{
	// Enough for 64 workers with two branches each and as many left to recover.
	// The default is 0: no prepared transactions at all.
	"max_prepared_transactions": "200",
	// Three nodes' pools, the tests' own connections, and room.
	"max_connections": "300",
	"shared_buffers":  "64MB",
	"fsync":           "on",
	// The default memory for parallel queries is in /dev/shm, where a killed
	// server would leave it; here it goes with the directory.
	"dynamic_shared_memory_type": "mmap",
	"listen_addresses":           "",
	"port":                       "5432", // in the socket's name only
	"timezone":                   "UTC",
	"log_line_prefix":            "%m [%p] ",
}

type postgres struct{ initdb, postgres, psql string }

func findPostgres() (engine, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return nil, err
	}
	var p postgres
	// One in PATH is meant; a distribution keeps the server's programs elsewhere.
	if p.postgres, err = exec.LookPath("postgres"); err != nil {
		if p.postgres, err = program("postgres", newestFirst(dirs)...); err != nil {
			return nil, err
		}
	}
	beside := filepath.Dir(p.postgres)
	if p.initdb, err = program("initdb", beside); err != nil {
		return nil, err
	}
	if p.psql, err = program("psql", beside); err != nil {
		return nil, err
	}
	return p, nil
}

func (p postgres) version(ctx context.Context) (string, error) { return versionOf(ctx, p.postgres) }

func (p postgres) install(ctx context.Context, dir string) *exec.Cmd {
	return exec.CommandContext(ctx, p.initdb, "--pgdata="+filepath.Join(dir, "data"), "--no-sync",
		"--username=postgres", "--auth=trust", "--locale=C", "--encoding=UTF8")
}

func (p postgres) configuration(dir string, settings map[string]string) (path, text string) {
	own := map[string]string{"unix_socket_directories": dir}
	for name, value := range settings {
		own[name] = value
	}
	for name, value := range own {
		own[name] = strings.ReplaceAll(value, "'", "''")
	}
	return filepath.Join(dir, "data", "postgresql.conf"), lines("%s = '%s'", postgresSettings, own)
}

func (p postgres) server(dir string) *exec.Cmd {
	return exec.Command(p.postgres, "-D", filepath.Join(dir, "data"))
}

const postgresSocket = ".s.PGSQL.5432"

// sweep removes the pid files of a dead server: their number may be somebody
// else's by now.
func (p postgres) sweep(dir string) {
	os.Remove(filepath.Join(dir, "data", "postmaster.pid")) //nolint:errcheck // it may not be there
	os.Remove(filepath.Join(dir, postgresSocket+".lock"))   //nolint:errcheck // the same
}

// ready looks where pg_ctl looks: the eighth line of the pid file.
func (p postgres) ready(dir string, pid int) bool {
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		return false
	}
	line := strings.Split(string(text), "\n")
	return len(line) >= 8 && line[0] == strconv.Itoa(pid) && strings.TrimSpace(line[7]) == "ready"
}

func (p postgres) dsn(dir, database string) string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	dsn := "host='" + quote.Replace(dir) + "' port=5432 user=postgres sslmode=disable"
	if database == "" {
		database = "postgres"
	}
	return dsn + " dbname='" + quote.Replace(database) + "'"
}

func (p postgres) client(ctx context.Context, dir, database string) *exec.Cmd {
	return exec.CommandContext(ctx, p.psql, "--no-psqlrc", "--quiet", "--no-align", "--tuples-only",
		"--field-separator=\t", "--set=ON_ERROR_STOP=1", "--dbname="+p.dsn(dir, database), "--file=-")
}

// stopSignal asks for a fast shutdown: it disconnects the clients.
func (p postgres) stopSignal() os.Signal { return syscall.SIGINT }
