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
	"timezone":                   "UTC",
	"log_line_prefix":            "%m [%p] ",
}

type postgres struct {
	initdb, postgres, psql string
	port                   int // 0 for none
}

func findPostgres(port int) (engine, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return nil, err
	}
	p := postgres{port: port}
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
	own := map[string]string{"unix_socket_directories": dir, "port": p.socketPort()}
	if p.port != 0 {
		own["listen_addresses"] = loopback
	}
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

// socketPort is the port in the socket's name, which there is without a port too.
func (p postgres) socketPort() string {
	if p.port == 0 {
		return "5432"
	}
	return strconv.Itoa(p.port)
}

// sweep removes the pid files of a dead server: their number may be somebody
// else's by now.
func (p postgres) sweep(dir string) {
	os.Remove(filepath.Join(dir, "data", "postmaster.pid"))           //nolint:errcheck // it may not be there
	os.Remove(filepath.Join(dir, ".s.PGSQL."+p.socketPort()+".lock")) //nolint:errcheck // the same
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
	return postgresDSN(dir, p.socketPort(), database)
}

func (p postgres) dsnAt(address, database string) string {
	host, port, _ := strings.Cut(address, ":") // loopback's has no other
	return postgresDSN(host, port, database)
}

// postgresDSN is one of libpq's, with a host or the directory of a socket.
func postgresDSN(host, port, database string) string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	if database == "" {
		database = "postgres"
	}
	return "host='" + quote.Replace(host) + "' port=" + port + " user=postgres sslmode=disable dbname='" + quote.Replace(database) + "'"
}

func (p postgres) client(ctx context.Context, dir, database string) *exec.Cmd {
	return exec.CommandContext(ctx, p.psql, "--no-psqlrc", "--quiet", "--no-align", "--tuples-only",
		"--field-separator=\t", "--set=ON_ERROR_STOP=1", "--dbname="+p.dsn(dir, database), "--file=-")
}

// stopSignal asks for a fast shutdown: it disconnects the clients.
func (p postgres) stopSignal() os.Signal { return syscall.SIGINT }
