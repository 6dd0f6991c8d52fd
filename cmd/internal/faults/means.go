package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/decree-tx/decree/cmd/internal/fleet"
)

// Means are what this machine lets faults do. Each is nil where it can, and says
// why where it can't.
type Means struct {
	Links error // telling who dialled
	Fill  error // a small disk of its own
	Power error // a file system that can be shut down and comes back
	Sync  error // tampering with a process's syncs
}

// probeDisk is the size of the disks that Probe tries.
const probeDisk = 16 << 20

// Probe tries each means once, on throwaway processes and disks. It takes about a
// second.
func Probe() (Means, error) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return Means{}, err
	}
	f, err := fleet.New(fleet.Config{Binary: sleep})
	if err != nil {
		return Means{}, err
	}
	_, links := os.Stat(socketTable)
	m := Means{Links: links, Sync: probeSync(f), Power: probePower(f)}
	if m.Power != nil {
		m.Fill = probeFill(f)
	}
	return m, f.Close()
}

// probeFill mounts a disk in memory.
func probeFill(f *fleet.Fleet) error {
	d, err := MemoryDisk(f, "fill", probeDisk)
	if err != nil {
		return err
	}
	return d.Close()
}

// probePower has a sleeper lose its power. What was synced must be there
// afterwards, and what was not must not, or the fault is none.
func probePower(f *fleet.Fleet) error {
	d, err := ImageDisk(f, "power", probeDisk)
	if err != nil {
		return err
	}
	p, err := f.Start("power", "infinity")
	if err != nil {
		return err
	}
	kept, lost := filepath.Join(d.Dir(), "kept"), filepath.Join(d.Dir(), "lost")
	if err := errors.Join(writeSynced(kept), os.WriteFile(lost, []byte("x"), 0o600)); err != nil {
		return err
	}
	undo, err := d.LosePower(p)
	if err != nil {
		return err
	}
	if err := undo(); err != nil {
		return err
	}
	if _, err := os.Stat(kept); err != nil {
		return fmt.Errorf("what was synced did not survive: %w", err)
	}
	if _, err := os.Stat(lost); err == nil {
		return errors.New("what was not synced survived")
	}
	return errors.Join(p.Kill(), d.Close())
}

func writeSynced(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.WriteString("x")
	return errors.Join(err, file.Sync(), file.Close())
}

// probeSync tampers with a sleeper's syncs, of which it makes none, and with those
// of a program that makes one.
func probeSync(f *fleet.Fleet) error {
	p, err := f.Start("sync", "infinity")
	if err != nil {
		return err
	}
	undo, err := FailSync(p)
	if err != nil {
		return err
	}
	if err := errors.Join(undo(), p.Kill()); err != nil {
		return err
	}
	err = run("strace", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "sync", f.Dir())
	switch {
	case err == nil:
		return errors.New("strace did not make an fsync fail")
	case !strings.Contains(err.Error(), "Input/output error"):
		return err
	}
	return nil
}
