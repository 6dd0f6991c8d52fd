package main

// What is proven here: the README's commands for databases work as they are
// written, on a real PostgreSQL and a real MariaDB.

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/decree-tx/decree/participants/participanttest/databases"
)

// readmeBlock is the shell block of the README that holds a text.
func readmeBlock(t *testing.T, holds string) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range strings.Split(string(readme), "```") {
		if code, ok := strings.CutPrefix(block, "sh\n"); ok && i%2 == 1 && strings.Contains(code, holds) {
			return code
		}
	}
	t.Fatalf("the README has no shell block with %q", holds)
	return ""
}

func TestReadmeDatabases(t *testing.T) {
	postgres := databases.ForTest(t, databases.Postgres, databases.Options{})
	mariadb := databases.ForTest(t, databases.MariaDB, databases.Options{})
	ctx := t.Context()
	err := errors.Join(
		postgres.Create(ctx, "orders"), mariadb.Create(ctx, "payments"),
		postgres.Exec(ctx, "orders", "CREATE TABLE stock (item text PRIMARY KEY, n int NOT NULL); INSERT INTO stock VALUES ('tea', 5)"),
		mariadb.Exec(ctx, "payments", "CREATE TABLE wallet (owner VARCHAR(64) PRIMARY KEY, cents INT NOT NULL) ENGINE=InnoDB; INSERT INTO wallet VALUES ('alice', 1000)"),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("ORDERS_DSN", postgres.DSN("orders")) // the servers' environment is this one
	b := startBench(t)
	leader, _ := b.leader(0, nil)
	secret := filepath.Join(b.dir, "payments.dsn")
	if err := os.WriteFile(secret, []byte(mariadb.DSN("payments")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	// Only what differs from reader to reader is replaced.
	script := strings.NewReplacer("bin/decree", build(t, "failpoints"), "/etc/decree/payments.dsn", secret).
		Replace(readmeBlock(t, "--driver postgres"))
	shell := exec.CommandContext(ctx, "bash", "-euc", script)
	shell.Env = append(os.Environ(), endpointsEnv+"="+leader.grpc)
	out, err := shell.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "committed") {
		t.Fatalf("%v:\n%s", err, out)
	}

	left, err1 := postgres.Query(ctx, "orders", "SELECT n FROM stock")
	paid, err2 := mariadb.Query(ctx, "payments", "SELECT cents FROM wallet")
	if err := errors.Join(err1, err2); err != nil || left != "3" || paid != "300" {
		t.Errorf("%s in stock, %s cents left, %v; want 3 and 300", left, paid, err)
	}
}
