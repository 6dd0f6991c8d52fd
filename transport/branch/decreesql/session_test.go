package decreesql_test

// These tests prove that the transaction which a function is given is one like any
// other, except that no error of a statement goes unseen, whichever way it comes:
// MariaDB would prepare what is left of such a branch (rule R8).

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/branch/decreesql"
)

// A no leaves nothing, and says why. MariaDB itself would prepare each of those
// whose error is swallowed.
func TestNoLeavesNothing(t *testing.T) {
	s := newTill(t)
	s.exec("INSERT INTO payment (payer) VALUES ('taken')")
	swallowed := func(statements ...string) func(context.Context, *sql.Tx) error {
		return func(ctx context.Context, tx *sql.Tx) error {
			for _, statement := range statements {
				_, _ = tx.ExecContext(ctx, statement)
			}
			return pay("more")(ctx, tx)
		}
	}
	for name, c := range map[string]struct {
		work func(context.Context, *sql.Tx) error
		says string
	}{
		"the function refuses": {func(ctx context.Context, tx *sql.Tx) error {
			return errors.Join(pay("a")(ctx, tx), errors.New("no credit"))
		}, "no credit"},
		"a statement fails":                {pay("taken"), "1062"},
		"an error is swallowed":            {swallowed("INSERT INTO payment (payer) VALUES ('taken')"), "1062"},
		"an error of syntax is swallowed":  {swallowed("INSERT INTO payment SET"), "1064"},
		"a statement that commits":         {swallowed("CREATE TABLE extra (n INT)"), "1399"},
		"an end by hand":                   {swallowed("COMMIT"), "1399"},
		"an error with arguments":          {func(ctx context.Context, tx *sql.Tx) error { _ = pay("taken")(ctx, tx); return nil }, "1062"},
		"an error of a prepared statement": {preparedStatement, "1062"},
		"an error among the rows":          {returning, "1062"},
		"an error of one row":              {returningOne, "1062"},
		"an error in rows left unread": {func(ctx context.Context, tx *sql.Tx) error {
			_, _ = tx.QueryContext(ctx, "INSERT INTO payment (payer) VALUES ('first'), ('taken') RETURNING payer") // never closed
			return nil
		}, "1062"},
		"an argument that cannot be sent": {func(ctx context.Context, tx *sql.Tx) error {
			_, _ = tx.ExecContext(ctx, "INSERT INTO payment (payer) VALUES (?)", struct{}{})
			return nil
		}, "unsupported type"},
		"the function rolls back": {func(ctx context.Context, tx *sql.Tx) error {
			defer tx.Rollback() //nolint:errcheck // a habit
			return pay("b")(ctx, tx)
		}, "rolled its transaction back"},
		"the function commits": {func(ctx context.Context, tx *sql.Tx) error {
			return errors.Join(pay("c")(ctx, tx), tx.Commit())
		}, "decree ends this transaction"},
		"the function commits and looks away": {func(ctx context.Context, tx *sql.Tx) error {
			err := pay("d")(ctx, tx)
			_ = tx.Commit()
			return err
		}, "decree ends this transaction"},
	} {
		t.Run(name, func(t *testing.T) {
			s.T = t
			b, marked := enlisted()
			vote, err := decreesql.Run(t.Context(), s.db, b, c.work)
			if err != nil || vote.Wire() != branch.No("").Wire() || !strings.Contains(vote.Reason(), c.says) {
				t.Fatalf("%s, %v; want a no with %q", vote, err, c.says)
			}
			s.clean(marked)
			if n := s.number("SELECT COUNT(*) FROM payment"); n != 1 {
				t.Errorf("%d payments, want the one that was there", n)
			}
		})
	}
}

func preparedStatement(ctx context.Context, tx *sql.Tx) error {
	statement, err := tx.PrepareContext(ctx, "INSERT INTO payment (payer) VALUES (?)")
	if err != nil {
		return err
	}
	defer statement.Close()
	_, err = statement.ExecContext(ctx, "first")
	_, _ = statement.ExecContext(ctx, "taken")
	return err
}

func returning(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, "INSERT INTO payment (payer) VALUES ('first'), ('taken') RETURNING payer")
	if err != nil {
		return nil //nolint:nilerr // it swallows what it can
	}
	defer rows.Close()
	for rows.Next() {
	}
	return nil
}

func returningOne(ctx context.Context, tx *sql.Tx) error {
	var payer string
	_ = tx.QueryRowContext(ctx, "INSERT INTO payment (payer) VALUES (?) RETURNING payer", "taken").Scan(&payer)
	return nil
}

// What the driver can do, the function can: prepared statements, rows and their
// types, and several results at once.
func TestEverythingOfTheDriver(t *testing.T) {
	s := newTill(t)
	b, name := enlisted()
	vote, err := decreesql.Run(t.Context(), s.db, b, func(ctx context.Context, tx *sql.Tx) error {
		statement, err := tx.PrepareContext(ctx, "INSERT INTO payment (payer, amount) VALUES (?, ?)")
		if err != nil {
			return err
		}
		defer statement.Close()
		for i, payer := range []string{"a", "b", "c"} {
			result, err := statement.ExecContext(ctx, payer, uint64(i))
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil || n != 1 {
				return fmt.Errorf("%d rows, %w", n, err)
			}
		}
		rows, err := tx.QueryContext(ctx, "SELECT payer, amount FROM payment WHERE amount > ? ORDER BY payer", 0)
		if err != nil {
			return err
		}
		defer rows.Close()
		types, err := rows.ColumnTypes()
		if err != nil {
			return err
		}
		nullable, known := types[1].Nullable()
		if types[0].DatabaseTypeName() != "VARCHAR" || types[1].ScanType().Kind().String() != "int32" || nullable || !known {
			return fmt.Errorf("types %v %v", types[0], types[1])
		}
		got := ""
		for rows.Next() {
			var payer string
			var amount int
			if err := rows.Scan(&payer, &amount); err != nil {
				return err
			}
			got += fmt.Sprint(payer, amount, " ")
		}
		if got != "b1 c2 " {
			return fmt.Errorf("rows %q", got)
		}
		return rows.Err()
	})
	if err != nil || vote != branch.Yes() {
		t.Fatalf("%s, %v; want yes", vote, err)
	}
	s.prepared(name, true)
}

// Two branches that wait for each other end, and one of them at least is refused.
func TestDeadlock(t *testing.T) {
	s := newTill(t)
	s.exec("INSERT INTO payment (payer) VALUES ('x'), ('y')")
	raise := func(payer string) string {
		return "UPDATE payment SET amount = amount + 1 WHERE payer = '" + payer + "'"
	}
	met := make(chan struct{})
	votes := make(chan branch.Vote, 2)
	cross := func(first, second string, arrive func()) {
		b, _ := enlisted()
		vote, err := decreesql.Run(t.Context(), s.db, b, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, raise(first))
			arrive()
			_, _ = tx.ExecContext(ctx, raise(second)) // the loser is not told apart by its function
			return err
		})
		if err != nil {
			t.Error(err)
		}
		votes <- vote
	}
	go cross("x", "y", func() { met <- struct{}{} })
	go cross("y", "x", func() { <-met })
	yes := 0
	for range 2 {
		if vote := <-votes; vote == branch.Yes() {
			yes++
		} else if !strings.Contains(vote.Reason(), "1213") {
			t.Errorf("%s, want a deadlock", vote)
		}
	}
	if yes != 1 {
		t.Errorf("%d branches were prepared, want one", yes)
	}
	if n := s.number("SELECT SUM(amount) FROM payment"); n != 2 {
		t.Errorf("%d is visible, want 2", n)
	}
}
