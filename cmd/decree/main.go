// Command decree is the whole of decree in one binary: the coordinator nodes,
// participants to try them with, and the tools of an operator.
//
// It is thin: it parses, assembles packages that know how, and shows what they
// answer. It is also the only place that knows which participant drivers exist.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// errStopped is why the context of a command ends: it was asked to stop.
var errStopped = errors.New("stopped by a signal")

// interruptedStatus is what a shell reports of a process that SIGINT ended.
const interruptedStatus = 128 + int(syscall.SIGINT)

// sameSignal is how close behind the first a signal is taken for the same one:
// timeout(1), and terminals with a process in between, send it twice.
const sameSignal = 250 * time.Millisecond

// awaitSecond returns when somebody is in a hurry.
func awaitSecond(signals <-chan os.Signal) {
	first := time.Now()
	for range signals {
		if time.Since(first) > sameSignal {
			return
		}
	}
}

func main() {
	// A library below raft-wal (coreos/pkg/capnslog) takes the standard logger over when
	// it is loaded, and under an init system sends what is logged to its journal.
	log.SetOutput(os.Stderr)
	log.SetFlags(log.LstdFlags)
	ctx, stop := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop(errStopped)
		awaitSecond(signals)
		fmt.Fprintln(os.Stderr, "decree: stopped at once")
		os.Exit(interruptedStatus)
	}()
	os.Exit(Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
