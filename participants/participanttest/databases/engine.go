package databases

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// engine is what differs between the kinds of server. The directory is always
// the server's own; its data are in "data" below it.
type engine interface {
	// version is the server program's own word; it names the template.
	version(ctx context.Context) (string, error)
	// install is the program that fills an empty data directory.
	install(ctx context.Context, dir string) *exec.Cmd
	// configuration is a file to write before the start: ours, then settings.
	configuration(dir string, settings map[string]string) (path, text string)
	// server is the server's process, in the foreground.
	server(dir string) *exec.Cmd
	// sweep removes what a killed server left that could hinder the next start.
	sweep(dir string)
	// ready reports whether the process takes connections.
	ready(dir string, pid int) bool
	dsn(dir, database string) string
	// dsnAt is dsn over TCP.
	dsnAt(address, database string) string
	// client reads SQL from its input and ends at the first error.
	client(ctx context.Context, dir, database string) *exec.Cmd
	stopSignal() os.Signal
}

// find looks for an engine's programs. The server is to listen on a port of
// loopback too, unless that is 0.
func find(e Engine, port int) (engine, error) {
	switch e {
	case Postgres:
		return findPostgres(port)
	case MariaDB:
		return findMariaDB(port)
	default:
		return nil, fmt.Errorf("engine %s: want Postgres or MariaDB", e)
	}
}

// loopback is where a server listens that has a port.
const loopback = "127.0.0.1"

// program finds a program in the directories, in PATH, or where distributions
// keep the programs of daemons.
func program(name string, dirs ...string) (string, error) {
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: %s", ErrMissing, name)
}

// newestFirst sorts directories like /usr/lib/postgresql/15/bin by their number.
func newestFirst(dirs []string) []string {
	number := func(dir string) float64 {
		n, _ := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64) // 0 where there is none
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return int(number(b) - number(a)) })
	return dirs
}

func versionOf(ctx context.Context, path string) (string, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// lines writes settings as lines of a configuration file, theirs over ours.
func lines(format string, ours, theirs map[string]string) string {
	all := maps.Clone(ours)
	maps.Copy(all, theirs)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, format+"\n", name, all[name])
	}
	return b.String()
}
