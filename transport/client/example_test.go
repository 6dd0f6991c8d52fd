package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/decree-tx/decree/transport/client"
)

// A transfer between two banks, and everything that may come of it.
func Example() {
	c, err := client.New(client.Config{Endpoints: demoCluster()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := c.Submit(ctx, client.Transaction{Branches: []client.Branch{
		client.JSON("bank-a", map[string]any{"op": "add", "key": "alice", "amount": -30, "min": 0}),
		client.JSON("bank-b", map[string]any{"op": "add", "key": "bob", "amount": 30}),
	}})
	var unknown *client.UnknownError
	switch {
	case errors.As(err, &unknown):
		fmt.Println("ask again with", unknown.TxID)
	case err != nil:
		fmt.Println("not run:", err)
	case r.Outcome == client.Aborted:
		fmt.Println("aborted:", r.Reason)
	default:
		fmt.Println(r.Outcome, "delivered:", r.Delivered)
	}
	// Output: committed delivered: true
}

// Branches are enlisted one by one; the transaction aborts unless it is committed
// in time.
func ExampleClient_Begin() {
	c, err := client.New(client.Config{Endpoints: demoCluster()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tx, err := c.Begin(ctx, time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := tx.Enlist(ctx, client.Bytes("bank-a", []byte("debit"))); err != nil {
		tx.Abort(ctx, "could not enlist")
		log.Fatal(err)
	}
	r, err := tx.Commit(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Outcome)
	// Output: committed
}

// Run builds and submits a transaction again where it was aborted for a reason
// that may pass; here a participant's no counts as one.
func ExampleClient_Run() {
	c, err := client.New(client.Config{Endpoints: demoCluster()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	policy := client.Policy{Attempts: 5, Retry: client.OnCodes(client.AbortUnavailable, client.AbortVote)}
	_, err = c.Run(ctx, policy, func() client.Transaction {
		return client.Transaction{Branches: []client.Branch{client.Bytes("bank-a", []byte("debit"))}}
	})
	fmt.Println(err)
	// Output: <nil>
}

// Three clusters share out the transactions. A client in the region of the second makes
// txids of that one, and finds those of the others.
func ExampleGroups() {
	g, err := client.NewGroups(client.GroupsConfig{
		Clusters: []client.Config{{Endpoints: demoGroup(1)}, {Endpoints: demoGroup(2)}, {Endpoints: demoGroup(3)}},
		Near:     []int{2},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := g.Submit(ctx, client.Transaction{Branches: []client.Branch{client.Bytes("bank-a", []byte("debit"))}})
	if err != nil {
		log.Fatal(err) // refused, or *client.UnknownError: ask again with its txid
	}
	fmt.Println(r.Outcome)
	// Output: committed
}

// demoGroup is a scripted cluster that is a group of three.
func demoGroup(number int) []string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	n := &node{group: client.Group{Number: number, Of: 3}}
	n.serve(l)
	return []string{n.addr}
}

// demoCluster is a scripted node that commits everything.
func demoCluster() []string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	n := &node{}
	n.serve(l)
	return []string{n.addr}
}
