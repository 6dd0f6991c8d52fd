package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/decree-tx/decree/cluster"
)

const (
	// syncedBytes is the size of a small entry's write, and one page of most disks.
	syncedBytes = 4096
	// syncs and syncTime bound the measurement: enough for a p99, and no wait.
	syncs    = 200
	syncTime = 2 * time.Second
	// A decision waits for two syncs in a row on the leader and one on a follower. At
	// slowSync it is decided in some 30 ms; etcd asks of its disks the same 10 ms at p99.
	slowSync = 10 * time.Millisecond
	// At badSync a decision takes a third of a second and queues form: a node that is
	// behind by an election timeout is as good as gone.
	badSync = 100 * time.Millisecond
	// No disk confirms a write in less than fakeSync: something keeps it in memory.
	fakeSync = 10 * time.Microsecond
	// leastInodes is far above the few files that a node has.
	leastInodes = 1000
)

// disk looks at the data directory, or at the directory in which it will be made.
func (e *exam) disk() {
	dir := e.Config.DataDir
	if dir == "" {
		e.found("data", "", Skip, "set --data-dir", "no data directory is configured")
		return
	}
	where, ok := e.directory(dir)
	if !ok {
		return
	}
	e.fileSystem(where)
	e.space(where)
	e.syncing(where)
}

// directory tells whether the node can use its data directory, and where on disk it is
// or will be.
func (e *exam) directory(dir string) (where string, usable bool) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.fresh = true
		where = existing(dir)
		if err := writable(where); err != nil {
			e.found("data", dir, Fail, "make it: install -d -o USER "+dir, "does not exist, and cannot be made: %s", err)
			return "", false
		}
		e.found("data", dir, OK, "", "does not exist yet; the node makes it")
		return where, true
	case err != nil:
		e.found("data", dir, Fail, "let the user that runs decree reach it", "%s", err)
		return "", false
	case !info.IsDir():
		e.found("data", dir, Fail, "name a directory of this node's own (--data-dir)", "is not a directory")
		return "", false
	}
	if err := writable(dir); err != nil {
		e.found("data", dir, Fail, fmt.Sprintf("give it to the user that runs decree: chown -R USER %s", dir), "cannot be written: %s", err)
		return "", false
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		e.found("data", dir, Warn, "chmod 700 "+dir, "mode %#o: others may change the log", mode)
		return dir, true
	}
	e.owner(dir)
	return dir, true
}

// owner tells whose data lies in the directory.
func (e *exam) owner(dir string) {
	phase, err := cluster.InspectDir(dir, e.Config.NodeID)
	switch {
	case errors.Is(err, cluster.ErrDirInUse):
		e.found("data", dir, OK, "", "in use by a running process")
	case errors.Is(err, cluster.ErrForeignDir):
		e.found("data", dir, Fail, "every node has a directory of its own for ever: correct --data-dir or --node-id", "%s", err)
	case errors.Is(err, cluster.ErrRemoved):
		e.found("data", dir, Fail, "to bring the machine back, empty the directory and add it with a new id (decree cluster add)", "%s", err)
	case err != nil:
		e.found("data", dir, Fail, "do not delete anything; if the log is lost, remove the node and add a new one with an empty directory", "%s", err)
	case phase == "":
		e.fresh = true
		e.found("data", dir, OK, "", "empty")
	default:
		e.found("data", dir, OK, "", "node %s's, %s", e.Config.NodeID, phase)
	}
}

// existing is the nearest directory above a path that exists.
func existing(path string) string {
	for {
		parent := filepath.Dir(path)
		if info, err := os.Stat(parent); err == nil && info.IsDir() || parent == path {
			return parent
		}
		path = parent
	}
}

// writable tries to make a file.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".decree-doctor-")
	if err != nil {
		return errors.Unwrap(err) // the path is named beside it
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func (e *exam) space(dir string) {
	free, inodes, err := room(dir)
	headroom, reserve := uint64(max(0, e.Config.DiskHeadroom)), uint64(max(0, e.Config.DiskReserve)) //nolint:gosec // not negative
	remedy := "make room, or put the data directory on a larger disk"
	switch {
	case err != nil:
		e.found("space", "", Skip, "", "%s", err)
	case free < headroom:
		e.found("space", "", Fail, remedy, "%s free, and a leader admits no transactions below --disk-headroom, %s", bytes(free), bytes(headroom))
	case e.fresh && free < headroom+reserve:
		e.found("space", "", Warn, remedy, "%s free, less than --disk-headroom and --disk-reserve together, %s", bytes(free), bytes(headroom+reserve))
	case inodes < leastInodes:
		e.found("space", "", Warn, "delete small files on that disk", "%s free, but only %d more files can be made", bytes(free), inodes)
	default:
		e.found("space", "", OK, "", "%s free", bytes(free))
	}
}

// bytes is a size as people read it.
func bytes(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	default:
		return fmt.Sprintf("%d KiB", n>>10)
	}
}

func (e *exam) fileSystem(dir string) {
	name, kind := fileSystemOf(dir)
	switch kind {
	case volatileSystem:
		e.found("file system", "", Fail, "put the data directory on a disk", "%s is memory: what was acknowledged is gone with the machine", name)
	case remoteSystem:
		e.found("file system", "", Warn, "use a local disk: each node has its own copy anyway", "%s: its syncs and locks may promise less than they say", name)
	case layeredSystem:
		e.found("file system", "", Warn, "mount a volume for the data directory", "%s is a container's own layer, and goes with it", name)
	case unknownSystem:
		e.found("file system", "", Skip, "", "unknown: %s", cmp.Or(name, "this system does not tell"))
	default:
		e.found("file system", "", OK, "", "%s", name)
	}
}

// systemKind is what a file system is good for.
type systemKind int

const (
	unknownSystem systemKind = iota
	localSystem
	layeredSystem
	remoteSystem
	volatileSystem
)

// syncing measures small synced writes where the log will be.
func (e *exam) syncing(dir string) {
	took, err := timeSyncs(dir, (*os.File).Sync)
	if err != nil {
		e.found("fsync", "", Fail, "look at the kernel's log: a disk that cannot sync must not hold a log", "%s", err)
		return
	}
	r, remedy := judgeSyncs(took)
	e.found("fsync", "", r, remedy, "p50 %s, p99 %s, slowest %s, of %d writes of 4 KiB",
		short(percentile(took, 50)), short(percentile(took, 99)), short(took[len(took)-1]), len(took))
}

// judgeSyncs judges sorted durations of syncs.
func judgeSyncs(took []time.Duration) (Result, string) {
	p50, p99 := percentile(took, 50), percentile(took, 99)
	switch {
	case p99 >= badSync:
		return Fail, "use a faster disk of its own: a decision waits for three of these in a row"
	case p99 >= slowSync:
		return Warn, "use a disk that others do not write to, or --log-store wal, which syncs half as often: a decision waits for three of these in a row"
	case p50 < fakeSync:
		return Warn, "no disk confirms a write so fast: find the cache that answers for it, for it loses what it holds with the power"
	default:
		return OK, ""
	}
}

// timeSyncs appends and syncs, and gives how long each took, sorted.
func timeSyncs(dir string, sync func(*os.File) error) (took []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".decree-doctor-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, syncedBytes)
	for start := time.Now(); len(took) < syncs && (len(took) == 0 || time.Since(start) < syncTime); {
		block[0]++
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := sync(f); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

// percentile is the nearest rank of sorted values.
func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)*percent+99)/100-1]
}

// short is a duration with three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}
