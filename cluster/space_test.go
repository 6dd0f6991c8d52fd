package cluster_test

// The hazard "disk full" of one node and of three, with a disk whose bytes are
// numbers: the door shuts early and opens late, the log has a
// reserve that nobody else can take, a snapshot never takes the room of the log, and
// leadership goes where there is room. No node dies of any of it.

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cluster"
	"github.com/decree-tx/decree/cluster/clustertest"
)

const (
	capacity = 1000 // bytes of a small disk
	headroom = 100
	reserve  = 200
)

// smallDisk is a disk in memory that somebody else fills.
type smallDisk struct {
	*clustertest.Disk

	mu       sync.Mutex
	others   int64 // guarded by mu: bytes of somebody else
	reserved int64 // guarded by mu
	failing  error // guarded by mu: what Free and Reserved answer
	unable   bool  // set before the node starts: it knows no reserve
	open     cluster.Store
}

func (d *smallDisk) fill(others int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.others = others
}

func (d *smallDisk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failing = err
}

func (d *smallDisk) Open(log hclog.Logger) (cluster.Store, error) {
	store, err := d.Disk.Open(log)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = store
	return store, err
}

// snapshots is how many the disk has.
func (d *smallDisk) snapshots(t *testing.T) int {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	list, err := d.open.Snapshots().List()
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func (d *smallDisk) Free() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(0, capacity-d.others-d.reserved), d.failing
}

func (d *smallDisk) Reserved() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reserved, d.failing
}

func (d *smallDisk) Reserve(bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failing != nil || d.unable {
		return errors.ErrUnsupported
	}
	d.reserved = max(d.reserved, bytes)
	return nil
}

// grow has the log use some of what was reserved for it.
func (d *smallDisk) grow(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved -= bytes
	d.others += bytes
}

// onSmallDisks starts nodes on small disks, in virtual time.
func onSmallDisks(t *testing.T, nodes int) (*clustertest.Cluster, map[string]*smallDisk) {
	t.Helper()
	var js journals
	disks := make(map[string]*smallDisk)
	c := clustertest.New(t, clustertest.Options{
		Nodes: nodes, FSM: js.make, Memory: true,
		Configure: func(cfg *cluster.Config) {
			if disks[cfg.ID] == nil {
				disks[cfg.ID] = &smallDisk{Disk: cfg.Storage.(*clustertest.Disk)}
			}
			cfg.Storage = disks[cfg.ID]
			cfg.DiskHeadroom, cfg.DiskReserve = headroom, reserve
			cfg.SnapshotThreshold, cfg.SnapshotInterval = 10, time.Second
		},
	})
	c.Apply([]byte("the first"))
	return c, disks
}

func TestTheDoor(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c, disks := onSmallDisks(t, 1)
		for _, step := range []struct {
			what   string
			others int64
			want   cluster.Disk
		}{
			{"room for all", 0, cluster.Disk{Free: 800, Reserve: 200}},
			{"just enough", 700, cluster.Disk{Free: 100, Reserve: 200}},
			{"below the headroom", 701, cluster.Disk{Free: 99, Reserve: 200, Low: true}},
			{"a little room is no room", 676, cluster.Disk{Free: 124, Reserve: 200, Low: true}},
			{"a quarter above it is", 675, cluster.Disk{Free: 125, Reserve: 200}},
			{"all at once: the reserve stays", 800, cluster.Disk{Free: 0, Reserve: 200, Low: true}},
			{"and all away", 0, cluster.Disk{Free: 800, Reserve: 200}},
		} {
			disks["n1"].fill(step.others)
			time.Sleep(5 * time.Second)
			if got := c.Node("n1").Status().Disk; got != step.want {
				t.Errorf("%s: got %+v, want %+v", step.what, got, step.want)
			}
			c.Apply([]byte(step.what))
		}
	})
}

// What the log has used of its reserve is reserved again, but not at the price of the
// headroom.
func TestTheReserveIsToppedUp(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c, disks := onSmallDisks(t, 1)
		d := disks["n1"]
		time.Sleep(5 * time.Second)
		d.fill(675 - 50)
		for _, step := range []struct {
			grown int64
			want  cluster.Disk
		}{
			{50, cluster.Disk{Free: 125, Reserve: 200}}, // there are 50 more than enough
			{1, cluster.Disk{Free: 125, Reserve: 199}},
			{199, cluster.Disk{Free: 125}},
		} {
			d.grow(step.grown)
			time.Sleep(5 * time.Second)
			if got := c.Node("n1").Disk(); got != step.want {
				t.Errorf("the log grew by %d: %+v, want %+v", step.grown, got, step.want)
			}
		}
		d.fill(0)
		time.Sleep(5 * time.Second)
		if got := c.Node("n1").Disk().Reserve; got != reserve {
			t.Errorf("with room for it, %d bytes are reserved", got)
		}
	})
}

// A write looks for itself: it does not find the disk full because nobody looked
// during the last second.
func TestWritesLookFirst(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c, disks := onSmallDisks(t, 1)
		time.Sleep(10 * time.Second)
		disks["n1"].fill(800)
		if c.Node("n1").Disk().Low {
			t.Fatal("somebody looked already")
		}
		began := time.Now()
		c.Apply([]byte("a"))
		if got := c.Node("n1").Disk(); !got.Low || got.Free != 0 {
			t.Errorf("after a write: %+v", got)
		}
		if took := time.Since(began); took != 0 {
			t.Fatalf("virtual time passed (%s): this has shown nothing", took)
		}
	})
}

// A node that starts on a full disk leads, with its door shut from the beginning, and
// reserves room once there is some.
func TestStartOnAFullDisk(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c, disks := onSmallDisks(t, 1)
		c.Crash("n1")
		disks["n1"].fill(capacity)
		disks["n1"].grow(disks["n1"].reserved)
		if got := c.Start("n1").Disk(); !got.Low || got.Reserve != 0 {
			t.Errorf("on a full disk: %+v", got)
		}
		c.Apply([]byte("a"))
		disks["n1"].fill(0)
		time.Sleep(10 * time.Second)
		if got := c.Node("n1").Disk(); got.Low || got.Reserve != reserve {
			t.Errorf("with room: %+v", got)
		}
	})
}

// A snapshot that would take the log's room is given up, and nothing else; there is
// one once there is room.
func TestSnapshotsLeaveRoomForTheLog(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c, disks := onSmallDisks(t, 1)
		d := disks["n1"]
		d.fill(capacity - reserve - headroom/2 + 1)
		for range 100 {
			c.Apply([]byte("a"))
		}
		time.Sleep(time.Minute)
		if n := d.snapshots(t); n != 0 {
			t.Errorf("%d snapshots below the floor", n)
		}
		d.fill(0)
		time.Sleep(time.Minute)
		if n := d.snapshots(t); n == 0 {
			t.Error("no snapshot, with all the room there is")
		}
		c.Apply([]byte("b"))
	})
}

// A disk that does not tell its room keeps nobody out.
func TestWhatCannotBeToldKeepsNobodyOut(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c, disks := onSmallDisks(t, 1)
		disks["n1"].fail(errors.ErrUnsupported)
		disks["n1"].fill(capacity)
		time.Sleep(10 * time.Second)
		c.Apply([]byte("a"))
		if c.Node("n1").Disk().Low {
			t.Error("its door is shut")
		}
	})
}

// A disk on which nothing can be reserved has its headroom all the same.
func TestHeadroomWithoutAReserve(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c, disks := onSmallDisks(t, 1)
		c.Crash("n1")
		disks["n1"].unable = true
		disks["n1"].grow(disks["n1"].reserved)
		disks["n1"].fill(0)
		c.Start("n1")
		time.Sleep(10 * time.Second)
		if got, want := c.Node("n1").Disk(), (cluster.Disk{Free: capacity}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		disks["n1"].fill(capacity - 1)
		time.Sleep(10 * time.Second)
		if got, want := c.Node("n1").Disk(), (cluster.Disk{Free: 1, Low: true}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// Leadership goes to a node with room, and stays where none has any.
func TestLeadershipGoesWhereThereIsRoom(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		c, disks := onSmallDisks(t, 3)
		full := make(map[string]bool)
		leader := func() string { return c.WaitLeader().Status().ID }
		for range 2 {
			old := leader()
			full[old] = true
			disks[old].fill(capacity - reserve)
			time.Sleep(5 * time.Second)
			if now := leader(); full[now] {
				t.Fatalf("%s leads, %v are full", now, full)
			}
			c.Apply([]byte(old))
		}
		last := leader()
		term := c.Node(last).Status().Term
		disks[last].fill(capacity - reserve)
		time.Sleep(30 * time.Second)
		if now := leader(); now != last || c.Node(now).Status().Term != term {
			t.Errorf("leadership went from %s to %s, in term %d, and nobody has room", last, now, c.Node(now).Status().Term)
		}
		for id := range full {
			disks[id].fill(0)
			time.Sleep(5 * time.Second)
			if now := leader(); now != id {
				t.Errorf("%s leads, and only %s has room", now, id)
			}
			break
		}
		c.Apply([]byte("the last"))
	})
}
