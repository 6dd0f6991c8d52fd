package branch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"go.etcd.io/bbolt"

	"github.com/decree-tx/decree/transport/branch"
)

// wallet moves money: the payload {"account": "alice", "amount": -30} takes 30
// from alice, and refuses where she has less.
type wallet struct{}

type move struct {
	Account string
	Amount  int64
}

// Prepare keeps others off the account and checks that the balance is enough.
func (wallet) Prepare(tx *branch.Tx, b branch.Branch) (branch.Vote, error) {
	var m move
	if err := json.Unmarshal(b.Payload, &m); err != nil {
		return branch.No("payload: %v", err), nil
	}
	if err := tx.Hold("account/" + m.Account); err != nil {
		return branch.No("%v", err), nil
	}
	if have := balance(tx.Tx, m.Account); have+m.Amount < 0 {
		return branch.No("%s has %d", m.Account, have), nil
	}
	return branch.Yes(), nil
}

// Commit moves the money, exactly once.
func (wallet) Commit(tx *branch.Tx, b branch.Branch) error {
	var m move
	if err := json.Unmarshal(b.Payload, &m); err != nil {
		return err
	}
	accounts, err := tx.CreateBucketIfNotExists([]byte("accounts"))
	if err != nil {
		return err
	}
	return accounts.Put([]byte(m.Account), strconv.AppendInt(nil, balance(tx.Tx, m.Account)+m.Amount, 10))
}

// Abort has nothing to take back: the account is released by itself.
func (wallet) Abort(*branch.Tx, branch.Branch) error { return nil }

func balance(tx *bbolt.Tx, account string) (n int64) {
	if accounts := tx.Bucket([]byte("accounts")); accounts != nil {
		n, _ = strconv.ParseInt(string(accounts.Get([]byte(account))), 10, 64)
	}
	return n
}

// A whole service: a wallet in one file, which takes part in transactions.
// Register it with `decree participant put wallet --driver grpc`.
func ExampleNewLocal() {
	dir, err := os.MkdirTemp("", "wallet")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := bbolt.Open(filepath.Join(dir, "wallet.db"), 0o600, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	server, err := branch.NewLocal(db, wallet{}, branch.Config{})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background()) // in main: signal.NotifyContext
	go pretendToBeDecree(listener.Addr().String(), stop)
	if err := server.Serve(ctx, listener); err != nil {
		log.Fatal(err)
	}
	_ = db.View(func(tx *bbolt.Tx) error {
		fmt.Println("alice has", balance(tx, "alice"))
		return nil
	})
	// Output:
	// give alice 100: yes, committed
	// take 130 from alice: no: alice has 100
	// take 30 from alice: yes, committed
	// alice has 70
}
