package cluster

// A real disk that is full: the reserve is the log's and nobody else's, and a node whose write finds
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

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
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

// The log writes on in its reserve while a stranger holds every other byte, and no
// further: entry by entry, the disk is filled up behind it.
func TestNobodyElseTakesTheReserve(t *testing.T) {
	for log, disk := range map[LogStore]int{BoltDB: 24 << 20, WAL: 32 << 20} {
		t.Run(string(log), func(t *testing.T) { writeInTheReserve(t, files{dir: tmpfs(t, disk), log: log, segment: 1 << 20}) })
	}
}

func writeInTheReserve(t *testing.T, f files) {
	const size = 4 << 20
	store, err := f.Open(hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := f.Reserve(size); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Reserved(); got < size || err != nil {
		t.Fatalf("%d bytes are reserved, %v", got, err)
	}
	entry := raft.Log{Type: raft.LogCommand, Data: make([]byte, 4<<10)}
	written, acknowledged := 0, uint64(0)
	for {
		fillUp(t, f.path("stranger"))
		if free, err := f.Free(); free != 0 || err != nil {
			t.Fatalf("%d bytes are free, %v", free, err)
		}
		entry.Index++
		if err := store.StoreLog(&entry); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
		written, acknowledged = written+len(entry.Data), entry.Index
		if err := store.SetUint64(keyCurrentTerm, entry.Index); err != nil {
			// Once the reserve is used up the vote may be the first to hear of it, for a wal
			// prepares its next file beside its writer.
			if f.log == WAL && written < size {
				t.Fatalf("a vote finds no room: %v", err)
			}
			break
		}
	}
	if last, err := store.LastIndex(); last != acknowledged || err != nil {
		t.Errorf("the log ends at %d, %d was acknowledged, %v", last, acknowledged, err)
	}
	if written < size/2 { // the rest is bbolt's pages
		t.Errorf("%d bytes of entries found room in a reserve of %d", written, size)
	}
	t.Logf("%d bytes of entries found room in a reserve of %d", written, size)
}

// A file that is ready to become part of a wal is one, whatever was left of it.
func TestSpareFilesAreUsed(t *testing.T) {
	f := inWAL(filepath.Join(t.TempDir(), "n1"))
	s, closeIt := mustOpen(t, f)
	must(t, os.WriteFile(filepath.Join(f.path(walDir), spareNew), []byte("half"), 0o600))
	for range 2 { // the second has nothing to do
		if err := f.Reserve(3 * smallSegment); errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		} else {
			must(t, err)
		}
	}
	spares := func() int64 {
		t.Helper()
		reserved, err := f.Reserved()
		must(t, err)
		return reserved / smallSegment
	}
	if got := spares(); got != 3 {
		t.Fatalf("%d spare files", got)
	}
	for i := uint64(1); spares() > 0; i++ {
		must(t, s.StoreLog(written(i, 20)))
	}
	closeIt()
	s, _ = mustOpen(t, f)
	last, err := s.LastIndex()
	must(t, err, sameEntriesAs(s, 1, last), f.Reserve(1))
	if got := spares(); got != 1 {
		t.Errorf("%d spare files", got)
	}
}

// A reserve costs blocks and changes nothing else: the file has the size and the
// content that it had.
func TestReservingChangesNoContent(t *testing.T) {
	const size = 5<<20 + 12345
	f := files{dir: t.TempDir()}
	path := f.path(boltFile)
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Reserve(size); errors.Is(err, errors.ErrUnsupported) {
			t.Skipf("the file system of %s reserves nothing: %v", f.dir, err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.Reserved()
	if content, _ := os.ReadFile(path); err != nil || got < size || got > size+1<<20 || string(content) != "content" {
		t.Errorf("%d bytes are reserved, want %d; the content is %.32q; %v", got, size, content, err)
	}
}

// R10: what was acknowledged before the disk was full is there after it.
func TestAFullDiskEndsTheNodeAndNothingElse(t *testing.T) { onBothLogStores(t, fullDiskEndsTheNode) }

func fullDiskEndsTheNode(t *testing.T, log LogStore) {
	// A wal goes on where there is room for a whole file.
	dir := tmpfs(t, map[LogStore]int{BoltDB: 24 << 20, WAL: 48 << 20}[log])
	cfg, exits := single(t, log)
	cfg.Dir = filepath.Join(dir, "n1")
	if log == WAL {
		cfg.Storage = boundless{files{dir: cfg.Dir, log: WAL}} // else a spare file would be taken
	}
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

// boundless is a storage that knows no bounds, and so has no reserve.
type boundless struct{ Storage }

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
