package decreepg_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/decree-tx/decree/transport/branch"
	"github.com/decree-tx/decree/transport/branch/decreepg"
	"github.com/decree-tx/decree/transport/client"
)

// An order in the application's own database, in one transaction with whatever
// else is enlisted. The participant "orders" is this database, registered under the
// driver "postgres".
func ExampleRun() {
	order := func(ctx context.Context, decree *client.Client, pool *pgxpool.Pool, item string) error {
		tx, err := decree.Begin(ctx, 10*time.Second)
		if err != nil {
			return err
		}
		orders, err := tx.Enlist(ctx, client.External("orders"))
		if err != nil {
			return err // the transaction aborts when its time is over
		}
		vote, err := decreepg.Run(ctx, pool, orders, func(ctx context.Context, tx pgx.Tx) error {
			taken, err := tx.Exec(ctx, "UPDATE stock SET available = available - 1 WHERE item = $1 AND available > 0", item)
			if err == nil && taken.RowsAffected() == 0 {
				err = fmt.Errorf("%s is sold out", item)
			}
			return err
		})
		if err != nil {
			_, abortErr := tx.Abort(ctx, err.Error())
			return errors.Join(err, abortErr)
		}
		result, err := tx.Commit(ctx, orders.Voted(vote)) // and the votes of the others
		if err != nil {
			return err // nobody knows yet: ask with result.TxID
		}
		return result.Err()
	}
	_ = order
}

// seats reserves seats, which are taken from the free ones by Try, so that nobody
// else gets them, and become sold by Confirm.
type seats struct{}

type reservation struct {
	Flight string
	Seats  int
}

func (seats) Try(ctx context.Context, tx pgx.Tx, b branch.Branch) (branch.Vote, error) {
	var r reservation
	if err := json.Unmarshal(b.Payload, &r); err != nil {
		return branch.No("payload: %v", err), nil
	}
	taken, err := tx.Exec(ctx, "UPDATE flight SET free = free - $2, held = held + $2 WHERE name = $1 AND free >= $2", r.Flight, r.Seats)
	if err != nil {
		return branch.Vote{}, err
	}
	if taken.RowsAffected() == 0 {
		return branch.No("%s has no %d seats", r.Flight, r.Seats), nil
	}
	return branch.Yes(), nil
}

func (seats) Confirm(ctx context.Context, tx pgx.Tx, b branch.Branch) error {
	return end(ctx, tx, b, "UPDATE flight SET held = held - $2, sold = sold + $2 WHERE name = $1")
}

func (seats) Cancel(ctx context.Context, tx pgx.Tx, b branch.Branch) error {
	return end(ctx, tx, b, "UPDATE flight SET held = held - $2, free = free + $2 WHERE name = $1")
}

func end(ctx context.Context, tx pgx.Tx, b branch.Branch, sql string) error {
	var r reservation // as Try saw it
	if err := json.Unmarshal(b.Payload, &r); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, sql, r.Flight, r.Seats)
	return err
}

// A whole service: seats on flights, tried, confirmed and cancelled. Register it
// with `decree participant put seats --driver grpc`.
func ExampleNewTCC() {
	serve := func(ctx context.Context, dsn, address string) error {
		pool, err := pgxpool.New(ctx, dsn)
		if err != nil {
			return err
		}
		defer pool.Close()
		server, err := decreepg.NewTCC(ctx, pool, seats{}, branch.Config{})
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		return server.Serve(ctx, listener) // until ctx ends; in main, that of signal.NotifyContext
	}
	if err := serve(context.Background(), "postgres:///flights", "127.0.0.1:7301"); err != nil {
		log.Fatal(err)
	}
}
