package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/decree-tx/decree/cmd/internal/fleet"
)

// Disk is a small file system for the data of one process. A disk in memory can be
// filled; one on an image can also lose its power.
type Disk struct {
	point string // where it is mounted
	image string // the file that stands for the device; empty for memory
}

// commandPatience bounds mount and its kin: none takes longer on a machine that
// still works.
const commandPatience = 30 * time.Second

// run runs a program and puts what it said into its error.
func run(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput() //nolint:gosec // names are ours
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// point makes the directory at which a disk is mounted.
func point(f *fleet.Fleet, name string) (string, error) {
	if strings.ContainsAny(f.Dir(), " \t\n\\") {
		return "", fmt.Errorf("the directory %q: the kernel's table of mounts writes such names differently", f.Dir())
	}
	dir := filepath.Join(f.Mounts(), name)
	return dir, os.MkdirAll(dir, 0o755)
}

// MemoryDisk mounts a disk of so many bytes in memory. It needs root.
func MemoryDisk(f *fleet.Fleet, name string, size int64) (*Disk, error) {
	at, err := point(f, name)
	if err != nil {
		return nil, err
	}
	return &Disk{point: at}, run("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=755", size), "decree-"+name, at)
}

// ImageDisk mounts a disk of so many bytes that is an ext4 file system on an image,
// through a loop device. It needs root and such devices. Below 16 MiB there is no
// room for the journal.
func ImageDisk(f *fleet.Fleet, name string, size int64) (*Disk, error) {
	at, err := point(f, name)
	if err != nil {
		return nil, err
	}
	d := &Disk{point: at, image: filepath.Join(f.Dir(), name+".img")}
	image, err := os.Create(d.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(image.Truncate(size), image.Close()); err != nil {
		return nil, err
	}
	// No blocks are kept for root, who would never find the disk full.
	if err := run("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", d.image); err != nil {
		return nil, err
	}
	return d, d.mount()
}

// mount attaches the image. The loop device frees itself when it is unmounted.
func (d *Disk) mount() error { return run("mount", "-o", "loop,noatime", d.image, d.point) }

// Dir is where the disk's files are.
func (d *Disk) Dir() string { return d.point }

// ballast is the file that fills a disk.
const ballast = "ballast"

// Fill leaves no byte free. Undone, what was free is free again.
func (d *Disk) Fill() (Undo, error) {
	path := filepath.Join(d.point, ballast)
	if err := fill(path); err != nil {
		return nil, errors.Join(fmt.Errorf("fill %s: %w", d.point, err), os.Remove(path))
	}
	return undoOnce(func() error { return os.Remove(path) }), nil
}

// KeepFull is Fill, and takes what becomes free too, until it is undone.
func (d *Disk) KeepFull() (Undo, error) {
	undo, err := d.Fill()
	if err != nil {
		return nil, err
	}
	enough := make(chan struct{})
	var filling sync.WaitGroup
	filling.Go(func() {
		tick := time.NewTicker(refill)
		defer tick.Stop()
		for {
			select {
			case <-enough:
				return
			case <-tick.C:
				fill(filepath.Join(d.point, ballast)) //nolint:errcheck // again in a moment
			}
		}
	})
	return undoOnce(func() error {
		close(enough)
		filling.Wait()
		return undo()
	}), nil
}

// refill is how often what has become free is taken.
const refill = 5 * time.Millisecond

// fill writes, in ever smaller pieces, until nothing fits.
func fill(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // nobody reads it
	for piece := 1 << 20; piece > 0; {
		switch _, err := file.Write(make([]byte, piece)); {
		case errors.Is(err, syscall.ENOSPC):
			piece /= 4
		case err != nil:
			return err
		}
	}
	return nil
}

// errNoPower says why a disk can't lose its power.
var errNoPower = errors.New("a disk in memory has no power to lose")

// LosePower ends the process and the file system under it at one moment: what the
// file system has not handed to its device by then, its journal included, is gone.
// (What a real device keeps in a volatile cache and was not told to flush is not.)
// Undone, the file system is mounted again, which replays its journal, and the
// process runs.
func (d *Disk) LosePower(p *fleet.Process) (Undo, error) {
	if d.image == "" {
		return nil, errNoPower
	}
	if err := shutDown(d.point); err != nil {
		return nil, fmt.Errorf("shut down the file system of %s: %w", p.Name(), err)
	}
	if err := errors.Join(p.Kill(), run("umount", d.point)); err != nil {
		return nil, err
	}
	return undoOnce(func() error {
		if err := d.mount(); err != nil {
			return err
		}
		return Revive(p)
	}), nil
}

// Close unmounts the disk. Without it the fleet's guard does.
func (d *Disk) Close() error { return run("umount", d.point) }
