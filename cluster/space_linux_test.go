package cluster

// A real disk that is full: the reserve is really there, and a node whose write finds
// no room after all exits as for any failed write, leaves a sound directory behind,
// and goes on from there once there is room.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// tmpfs mounts a file system of so many bytes until the test ends.
func tmpfs(t *testing.T, bytes int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a small file system; CI does")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("this kernel lets no tmpfs be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// blocks is what a file takes of its disk.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// The reserve takes blocks, by either way of making it, and gives them back.
func TestTheReserveIsAllocated(t *testing.T) {
	const size = 5<<20 + 12345
	f := files{t.TempDir()}
	path := filepath.Join(f.dir, reserveFile)
	if err := f.Reserve(size); err != nil {
		t.Fatal(err)
	}
	if got := blocks(t, path); f.Reserved() != size || got < size {
		t.Errorf("a reserve of %d bytes, %d of them on the disk", f.Reserved(), got)
	}
	if err := f.Reserve(0); err != nil || f.Reserved() != 0 {
		t.Errorf("it is still there: %d bytes, %v", f.Reserved(), err)
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fill(file, size), file.Sync(), file.Close()); err != nil {
		t.Fatal(err)
	}
	if got := blocks(t, path); f.Reserved() != size || got < size {
		t.Errorf("written: a reserve of %d bytes, %d of them on the disk", f.Reserved(), got)
	}
}

// A reserve that does not fit leaves nothing behind, and the disk's room is told.
func TestAReserveThatDoesNotFit(t *testing.T) {
	dir := tmpfs(t, 4<<20)
	f := files{dir}
	if err := f.Reserve(8 << 20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	s := newSpace(f, Config{DiskHeadroom: 1 << 20, DiskReserve: 8 << 20, Logger: Config{}.withDefaults().Logger})
	s.look()
	if got := f.Reserved(); got != 0 || !s.disk().Low || s.disk().Free != 4<<20 {
		t.Errorf("%d bytes are reserved, %+v", got, s.disk())
	}
}

// R10: what was acknowledged before the disk was full is there after it.
func TestAFullDiskEndsTheNodeAndNothingElse(t *testing.T) {
	dir := tmpfs(t, 24<<20)
	cfg, exits := single(t)
	cfg.Dir = filepath.Join(dir, "n1")
	cfg.DiskHeadroom, cfg.DiskReserve = 1, 1 // nothing is kept for decisions
	n, _ := openFaulty(t, cfg)
	stranger := filepath.Join(dir, "stranger")
	acknowledged := uint64(0)
	entry := make([]byte, 64<<10)
	for len(exits) == 0 {
		index, _, err := n.Apply(entry).Wait(context.Background())
		if err == nil {
			acknowledged = index
			fillUp(t, stranger)
		}
	}
	if err := <-exits; !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("exit: %v", err)
	}
	if err := n.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(stranger); err != nil {
		t.Fatal(err)
	}
	again, _ := openFaulty(t, cfg)
	if last := again.Status().LastIndex; last < acknowledged {
		t.Errorf("the log ends at %d, and %d was acknowledged", last, acknowledged)
	}
	if _, _, err := again.Apply(entry).Wait(context.Background()); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// fillUp appends to a file until the disk is full.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 64<<10)
	for len(chunk) > 0 {
		if _, err := f.Write(chunk); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			chunk = chunk[:len(chunk)/2]
		}
	}
}
