// Package faults does to real processes what happens to machines: they crash, hang,
// lose their links, fill their disks, have fsyncs that fail or never end, and lose
// power.
//
// It owns the faults and how each is taken back. It refuses to know what the
// processes are for, and when a fault should come. Every fault returns an [Undo],
// or none and an error when it did not take effect. What a fault leaves on the
// machine belongs to the fleet whose process it hits: tracers work in the fleet's
// workplace, file systems are mounted among its mounts, links live in this process.
// So nothing stays behind, however this process ends.
//
// What a machine does not allow is told by [Probe], before it is needed.
package faults

import (
	"errors"
	"fmt"
	"sync"

	"github.com/decree-tx/decree/cmd/internal/fleet"
)

// Undo takes a fault back. A second call does nothing and returns what the first
// did.
type Undo func() error

// undoOnce makes an undo of what may be done once.
func undoOnce(undo func() error) Undo { return sync.OnceValue(undo) }

// All takes several back, the last fault first, whatever becomes of each.
func All(undos ...Undo) Undo {
	return undoOnce(func() error {
		var errs []error
		for i := len(undos) - 1; i >= 0; i-- {
			errs = append(errs, undos[i]())
		}
		return errors.Join(errs...)
	})
}

// Kill is kill -9, and returns when the process is gone. Undone, it runs again.
func Kill(p *fleet.Process) (Undo, error) {
	if err := p.Kill(); err != nil {
		return nil, err
	}
	return undoOnce(func() error { return Revive(p) }), nil
}

// Revive starts a process that has ended, for whatever reason.
func Revive(p *fleet.Process) error {
	if p.Alive() {
		return nil
	}
	return p.Start()
}

// Restart kills a process that runs, and starts it in any case: for one that has
// seen an error which it can't get over.
func Restart(p *fleet.Process) error {
	if err := p.Kill(); err != nil {
		return err
	}
	return p.Start()
}

// Pause is SIGSTOP, as when a virtual machine is frozen: links stay up, and nothing
// is answered. Undone, the process goes on where it was, if it still lives.
func Pause(p *fleet.Process) (Undo, error) {
	if err := p.Signal(pause); err != nil {
		return nil, fmt.Errorf("pause %s: %w", p.Name(), err)
	}
	return undoOnce(func() error { return p.Signal(resume) }), nil
}
