package databases

import (
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// mariadbSettings are for tests of a coordinator: real durability, much at once,
// little memory. The binary log is off, as it is by default.
var mariadbSettings = map[string]string{
	"max_connections":                "400", // as for PostgreSQL, and those that wait to be killed
	"innodb_buffer_pool_size":        "64M",
	"innodb_log_file_size":           "32M",
	"innodb_flush_log_at_trx_commit": "1",
	"character_set_server":           "utf8mb4",
	"default_time_zone":              "+00:00",
	"skip_networking":                "ON",
	"skip_name_resolve":              "ON",
}

type mariadb struct {
	installer, daemon, shell string
	port                     int // 0 for none
}

func findMariaDB(port int) (engine, error) {
	m := mariadb{port: port}
	var err error
	if m.daemon, err = program("mariadbd"); err != nil {
		return nil, err
	}
	if m.installer, err = program("mariadb-install-db"); err != nil {
		return nil, err
	}
	if m.shell, err = program("mariadb"); err != nil {
		return nil, err
	}
	return m, nil
}

func (m mariadb) version(ctx context.Context) (string, error) { return versionOf(ctx, m.daemon) }

func (m mariadb) install(ctx context.Context, dir string) *exec.Cmd {
	// The directory for temporary tables is its own: a server that starts removes
	// what it finds there, and so what another's installer is using. A template
	// with a small log copies faster; the server makes the one it wants.
	return exec.CommandContext(ctx, m.installer, "--no-defaults", "--datadir="+filepath.Join(dir, "data"), "--tmpdir="+dir,
		"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
		"--innodb-log-file-size=4M")
}

const mariadbSocket = "mariadb.sock"

func (m mariadb) configuration(dir string, settings map[string]string) (path, text string) {
	own := map[string]string{
		"datadir":  filepath.Join(dir, "data"),
		"socket":   filepath.Join(dir, mariadbSocket),
		"pid_file": filepath.Join(dir, "pid"),
		"tmpdir":   dir,
	}
	if m.port != 0 {
		own["skip_networking"], own["bind_address"], own["port"] = "OFF", loopback, strconv.Itoa(m.port)
	}
	for name, value := range settings {
		own[name] = value
	}
	return filepath.Join(dir, "my.cnf"), "[mariadbd]\n" + lines("%s = %s", mariadbSettings, own)
}

func (m mariadb) server(dir string) *exec.Cmd {
	return exec.Command(m.daemon, "--defaults-file="+filepath.Join(dir, "my.cnf"))
}

func (m mariadb) sweep(dir string) {
	os.Remove(filepath.Join(dir, mariadbSocket)) //nolint:errcheck // it may not be there
}

// ready waits for the greeting that the server sends to every client that may
// log in: a packet that begins with the protocol's version, 10.
func (m mariadb) ready(dir string, _ int) bool {
	conn, err := net.DialTimeout("unix", filepath.Join(dir, mariadbSocket), time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	const header, protocol = 4, 10
	var greeting [header + 1]byte
	if conn.SetDeadline(time.Now().Add(time.Second)) != nil {
		return false
	}
	_, err = io.ReadFull(conn, greeting[:])
	return err == nil && greeting[header] == protocol
}

func (m mariadb) dsn(dir, database string) string {
	return "root@unix(" + filepath.Join(dir, mariadbSocket) + ")/" + url.PathEscape(database)
}

func (m mariadb) dsnAt(address, database string) string {
	return "root@tcp(" + address + ")/" + url.PathEscape(database)
}

func (m mariadb) client(ctx context.Context, dir, database string) *exec.Cmd {
	args := []string{"--no-defaults", "--user=root", "--socket=" + filepath.Join(dir, mariadbSocket),
		"--batch", "--skip-column-names"}
	if database != "" {
		args = append(args, "--database="+database)
	}
	return exec.CommandContext(ctx, m.shell, args...)
}

func (m mariadb) stopSignal() os.Signal { return syscall.SIGTERM }
