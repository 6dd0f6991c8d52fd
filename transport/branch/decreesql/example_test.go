package decreesql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/decree-tx/decree/transport/branch/decreesql"
	"github.com/decree-tx/decree/transport/client"
)

// A payment in the application's own database, in one transaction with whatever
// else is enlisted. The participant "payments" is this database, registered under
// the driver "mysql".
func ExampleRun() {
	charge := func(ctx context.Context, decree *client.Client, db *sql.DB, customer string, amount int) error {
		tx, err := decree.Begin(ctx, 10*time.Second)
		if err != nil {
			return err
		}
		payment, err := tx.Enlist(ctx, client.External("payments"))
		if err != nil {
			return err // the transaction aborts when its time is over
		}
		vote, err := decreesql.Run(ctx, db, payment, func(ctx context.Context, tx *sql.Tx) error {
			taken, err := tx.ExecContext(ctx, "UPDATE wallet SET balance = balance - ? WHERE customer = ? AND balance >= ?", amount, customer, amount)
			if err != nil {
				return err
			}
			if n, err := taken.RowsAffected(); err != nil || n == 0 {
				return errors.Join(fmt.Errorf("%s cannot pay %d", customer, amount), err)
			}
			return nil
		})
		if err != nil {
			_, abortErr := tx.Abort(ctx, err.Error())
			return errors.Join(err, abortErr)
		}
		result, err := tx.Commit(ctx, payment.Voted(vote)) // and the votes of the others
		if err != nil {
			return err // nobody knows yet: ask with result.TxID
		}
		return result.Err()
	}
	_ = charge
}
