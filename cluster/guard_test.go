package cluster

// A node whose disk fails or hangs ends its process instead of going on (upstream
// #503), it never tries a failed write again, and what crashes leave half done at
// the first start is completed (rule R15). Real stores, a real transport.

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// nothing is a state machine that forgets.
type nothing struct{ raft.FSM }

func (nothing) Apply(*raft.Log) any { return nil }

// onBothLogStores runs a story with each of them.
func onBothLogStores(t *testing.T, story func(t *testing.T, log LogStore)) {
	t.Helper()
	for _, log := range []LogStore{BoltDB, WAL} {
		t.Run(string(log), func(t *testing.T) { story(t, log) })
	}
}

// single is the configuration of a cluster of one, over TCP. Exits are told to the
// channel.
func single(t *testing.T, log LogStore) (Config, <-chan error) {
	exits := make(chan error, 1)
	return Config{
		LogStore: log, ID: "n1", Bind: "127.0.0.1:0", Dir: t.TempDir(), FSM: nothing{}, Peers: []Peer{{ID: "n1"}},
		StoreTimeout: time.Minute, // the machine's own disk may be slow
		Exit:         func(err error) { exits <- err },
	}, exits
}

// faulty is a disk that can be told to fail or to hang.
type faulty struct {
	stores
	fail   atomic.Bool
	hang   atomic.Pointer[chan struct{}]
	writes atomic.Int64 // after it was told to fail
}

func (f *faulty) StoreLogs(ls []*raft.Log) error {
	if hang := f.hang.Load(); hang != nil {
		<-*hang
	}
	if f.fail.Load() {
		f.writes.Add(1)
		return syscall.EIO
	}
	return f.stores.StoreLogs(ls)
}

func (f *faulty) SetUint64(key []byte, v uint64) error {
	if f.fail.Load() {
		f.writes.Add(1)
		return syscall.EIO
	}
	return f.stores.SetUint64(key, v)
}

func openFaulty(t *testing.T, cfg Config) (*Node, *faulty) {
	t.Helper()
	var disk *faulty
	n, err := open(context.Background(), cfg, seams{wrap: func(s stores) stores {
		disk = &faulty{stores: s}
		return disk
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close(context.Background()) })
	changes, cancel := n.LeaderChanges()
	defer cancel()
	for _, ok := n.Leader(); !ok; _, ok = n.Leader() {
		<-changes
	}
	return n, disk
}

// R10: a failed write may have lost what a second try reports as written, so there
// is none; its entry is of unknown outcome (R5).
func TestFailedWriteEndsTheProcess(t *testing.T) {
	onBothLogStores(t, func(t *testing.T, log LogStore) {
		cfg, exits := single(t, log)
		cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLease = 50*time.Millisecond, 50*time.Millisecond, 25*time.Millisecond
		n, disk := openFaulty(t, cfg)
		working, worked := make(chan struct{}), make(chan struct{})
		n.Lead(func(ctx context.Context, _ uint64) {
			close(working)
			<-ctx.Done()
			close(worked)
		})
		<-working
		if _, _, err := n.Apply([]byte("a")).Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		disk.fail.Store(true)
		_, _, err := n.Apply([]byte("b")).Wait(context.Background())
		if !errors.Is(err, ErrUnknown) || errors.Is(err, ErrNotLeader) {
			t.Errorf("the entry that met the failure: got %v, want ErrUnknown alone", err)
		}
		if err := <-exits; !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "the disk fails") {
			t.Errorf("exit: %v", err)
		}
		<-worked // a leader that is about to exit does not go on working
		n.Apply([]byte("c")).Wait(context.Background())
		<-time.After(20 * cfg.ElectionTimeout) // a Raft that still ran would store a term for its next election
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if got := disk.writes.Load(); got != 1 {
			t.Errorf("%d writes reached the failed disk: it was tried again", got)
		}
	})
}

// R5: the entry inside the hung write is of unknown outcome, and the one behind it
// has failed for certain.
func TestHungWriteEndsTheProcess(t *testing.T) {
	onBothLogStores(t, func(t *testing.T, log LogStore) {
		cfg, exits := single(t, log)
		cfg.StoreTimeout = 3 * time.Second // more than the machine's own disk takes
		n, disk := openFaulty(t, cfg)
		if _, _, err := n.Apply([]byte("before")).Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		hang := make(chan struct{})
		disk.hang.Store(&hang)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := n.Apply([]byte("a")).Wait(context.Background()); !errors.Is(err, ErrUnknown) {
				t.Errorf("the entry that hung: got %v, want ErrUnknown", err)
			}
		})
		if err := <-exits; !strings.Contains(err.Error(), "the disk hangs") {
			t.Errorf("exit: %v", err)
		}
		// Raft's loop is inside the write: it takes nothing more, and that is definite.
		if _, _, err := n.Apply([]byte("b")).Wait(context.Background()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("an entry behind the one that hangs: got %v, want ErrNotLeader", err)
		}
		close(hang)
		wg.Wait()
	})
}

// R10: what was acknowledged survives a power loss, since every write is synced.
// Nothing less than a power cut shows the difference, so this reads the setting.
func TestEveryWriteOfTheLogIsSynced(t *testing.T) {
	cfg, _ := single(t, BoltDB)
	d, err := openDisk(cfg.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	file := reflect.ValueOf(d.store.(*openFiles).logAndVote).Elem().FieldByName("conn").Elem()
	for _, setting := range []string{"NoSync", "NoGrowSync"} {
		if file.FieldByName(setting).Bool() {
			t.Errorf("%s is set", setting)
		}
	}
}

// The first write already fails: Open reports it, and does not panic.
func TestDiskThatFailsFromTheStart(t *testing.T) {
	onBothLogStores(t, func(t *testing.T, log LogStore) {
		cfg, exits := single(t, log)
		_, err := open(context.Background(), cfg, seams{wrap: func(s stores) stores {
			f := &faulty{stores: s}
			f.fail.Store(true)
			return f
		}})
		if err == nil {
			t.Fatal("it opened")
		}
		if err := <-exits; !errors.Is(err, syscall.EIO) {
			t.Errorf("exit: %v", err)
		}
	})
}

// The founders are on disk, and the process died before, inside and after Raft's
// bootstrap. Each time the next start completes it with the same founders.
func TestCrashWhileFounding(t *testing.T) { onBothLogStores(t, crashWhileFounding) }

func crashWhileFounding(t *testing.T, log LogStore) {
	for name, crash := range map[string]func(*testing.T, *disk){
		"before the bootstrap": func(*testing.T, *disk) {},
		"between its two writes": func(t *testing.T, d *disk) {
			if err := d.store.SetUint64([]byte("CurrentTerm"), 1); err != nil {
				t.Fatal(err)
			}
		},
		"before the note of it": func(t *testing.T, d *disk) {
			conf := raft.DefaultConfig()
			conf.LocalID = "n1"
			err := raft.BootstrapCluster(conf, d.store, d.store, d.snapshots, nil, raft.Configuration{
				Servers: []raft.Server{{ID: "n1", Address: "127.0.0.1:1"}},
			})
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := single(t, log)
			d, err := openDisk(cfg.withDefaults())
			if err != nil {
				t.Fatal(err)
			}
			me := d.identity()
			me.Phase, me.Founders = phaseAgreed, []founder{{ID: "n1", RaftAddress: "127.0.0.1:1", Incarnation: me.Incarnation}}
			if err := d.become(me); err != nil {
				t.Fatal(err)
			}
			crash(t, d)
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
			n, _ := openFaulty(t, cfg)
			if got := n.disk.identity(); got.Phase != phaseMember || got.Incarnation != me.Incarnation {
				t.Errorf("the disk is %+v", got)
			}
			if got := n.Status().Members; len(got) != 1 || got[0].RaftAddress != "127.0.0.1:1" {
				t.Errorf("the members are %v, not the founders", got)
			}
		})
	}
}

// A disk only moves forward: a write that is still under way when the node is
// removed does not make it a member again.
func TestPhaseNeverGoesBack(t *testing.T) {
	onBothLogStores(t, func(t *testing.T, log LogStore) {
		cfg, _ := single(t, log)
		d, err := openDisk(cfg.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		for _, to := range []phase{phaseMember, phaseRemoved, phaseMember, phaseEmpty} {
			if err := d.advance(to); err != nil {
				t.Fatal(err)
			}
		}
		if got := d.identity().Phase; got != phaseRemoved {
			t.Errorf("the phase is %s", got)
		}
	})
}
