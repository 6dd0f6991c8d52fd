package bank

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/grpc"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/transport/branch"
)

// wallet is a service such as its users write: it keeps accounts in a bbolt file
// of its own and takes part through transport/branch. Beside the accounts it keeps
// a journal of its own, so that what it did can be read without the help of the
// package that is tried here.
type wallet struct{}

// walletMoves is its payload: accounts and what each gains or loses.
type walletMoves struct {
	Moves []walletMove `json:"moves"`
}

type walletMove struct {
	Account string `json:"account"`
	Amount  int64  `json:"amount"`
}

// The buckets of its file, beside the SDK's "decree".
var (
	walletAccounts = []byte("accounts")
	walletJournal  = []byte("journal")  // branches that were committed, by name
	walletReserved = []byte("reserved") // branches that are prepared, by name
)

// fileWait is how long a file may be held by the process that has it.
const fileWait = 5 * time.Second

// ServeWallet serves a wallet whose file is at path, until ctx ends. opts add to the
// server's options, credentials for example.
func ServeWallet(ctx context.Context, l net.Listener, path string, opts ...grpc.ServerOption) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: fileWait})
	if err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", path, err), l.Close())
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		var errs []error
		for _, name := range [][]byte{walletAccounts, walletJournal, walletReserved} {
			_, err := tx.CreateBucketIfNotExists(name)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return errors.Join(err, l.Close(), db.Close())
	}
	server, err := branch.NewLocal(db, wallet{}, branch.Config{})
	if err != nil {
		return errors.Join(err, l.Close(), db.Close())
	}
	return errors.Join(server.Serve(ctx, l, opts...), db.Close())
}

// Prepare keeps others off the accounts and checks that each has enough.
func (wallet) Prepare(tx *branch.Tx, b branch.Branch) (branch.Vote, error) {
	var p walletMoves
	if err := json.Unmarshal(b.Payload, &p); err != nil {
		return branch.No("payload: %v", err), nil
	}
	for _, m := range p.Moves {
		if err := tx.Hold(m.Account); err != nil {
			return branch.No("%v", err), nil
		}
		have, err := walletBalance(tx.Tx, m.Account)
		switch {
		case err != nil:
			return branch.Vote{}, err
		case have+m.Amount < 0:
			return branch.No("%s has %d", m.Account, have), nil
		}
	}
	return branch.Yes(), tx.Bucket(walletReserved).Put([]byte(b.Name()), nil)
}

// Commit moves the money and writes it down.
func (wallet) Commit(tx *branch.Tx, b branch.Branch) error {
	var p walletMoves
	if err := json.Unmarshal(b.Payload, &p); err != nil {
		return err
	}
	for _, m := range p.Moves {
		have, err := walletBalance(tx.Tx, m.Account)
		if err != nil {
			return err
		}
		if err := tx.Bucket(walletAccounts).Put([]byte(m.Account), strconv.AppendInt(nil, have+m.Amount, 10)); err != nil {
			return err
		}
	}
	name := []byte(b.Name())
	return errors.Join(tx.Bucket(walletReserved).Delete(name), tx.Bucket(walletJournal).Put(name, nil))
}

// Abort has nothing to give back: the accounts are released by themselves.
func (wallet) Abort(tx *branch.Tx, b branch.Branch) error {
	return tx.Bucket(walletReserved).Delete([]byte(b.Name()))
}

func walletBalance(tx *bbolt.Tx, account string) (int64, error) {
	value := tx.Bucket(walletAccounts).Get([]byte(account))
	if value == nil {
		return 0, nil
	}
	return strconv.ParseInt(string(value), 10, 64)
}

// walletOffice is the office whose service ServeWallet is.
type walletOffice struct{ *service }

// NewWallet is the office of a wallet.
func NewWallet(at Service) (Office, error) {
	s, err := newService(at)
	if err != nil {
		return nil, err
	}
	return &walletOffice{s}, nil
}

// Payload is what the wallet reads; an account that is not there has 0.
func (o *walletOffice) Payload(moves []Move, _ bool) any {
	var p walletMoves
	for _, m := range moves {
		p.Moves = append(p.Moves, walletMove{m.Account.Name, m.Amount})
	}
	return p
}

// Books reads the wallet's own file and journal; its service has stopped.
func (o *walletOffice) Books(_ context.Context, cluster string) (Books, error) {
	db, err := bbolt.Open(o.Path, 0o600, &bbolt.Options{Timeout: fileWait, ReadOnly: true})
	if err != nil {
		return Books{}, fmt.Errorf("open %s: %w", o.Path, err)
	}
	defer db.Close() //nolint:errcheck // it was only read
	books := newBooks(o.Name)
	err = db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket(walletAccounts).ForEach(func(name, value []byte) (err error) {
			books.Balances[string(name)], err = strconv.ParseInt(string(value), 10, 64)
			return err
		})
		if err != nil {
			return err
		}
		for bucket, fate := range map[string]participants.Status{
			string(walletJournal): participants.StatusCommitted, string(walletReserved): participants.StatusPrepared,
		} {
			_ = tx.Bucket([]byte(bucket)).ForEach(func(name, _ []byte) error { // the function never fails
				books.enter(string(name), cluster, fate)
				return nil
			})
		}
		return nil
	})
	return books, err
}

// enter writes a branch down under the name that transport/branch gave it:
// cluster/txid/number.
func (b *Books) enter(name, cluster string, fate participants.Status) {
	parts := strings.Split(name, "/")
	if len(parts) == 3 && parts[0] == cluster {
		if number, err := strconv.Atoi(parts[2]); err == nil {
			b.Fates[Branch{parts[1], number}] = fate
			return
		}
	}
	b.Strangers = append(b.Strangers, name)
}
