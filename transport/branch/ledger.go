package branch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// The ledger's place in the file:
//
//	decree/
//	  format              "1"
//	  holds/              held name -> key of the branch that holds it
//	  clusters/<id>/
//	    fence             epoch and horizon, 8 bytes each
//	    open/             branch key -> record that waits for its decision
//	    done/             branch key -> record that is at its end
//
// A branch key is the txid and two bytes of branch number, so that a bucket is in
// the order of age. The sequence of an open bucket counts its records: bbolt keeps
// it in the same transaction and at no cost.
var (
	rootName     = []byte("decree")
	formatName   = []byte("format")
	holdsName    = []byte("holds")
	clustersName = []byte("clusters")
	fenceName    = []byte("fence")
	openName     = []byte("open")
	doneName     = []byte("done")
)

const (
	format = "1"
	// maxClusters bounds the clusters that one service serves: there is one, and
	// another while it moves. More are strays, and each would keep books for ever.
	maxClusters = 16
	// forgetAtOnce bounds what one write forgets, so that a horizon which jumps
	// does not hold up the branch that brought it.
	forgetAtOnce = 32
)

// ledger is the books of one service.
type ledger struct {
	db      *bbolt.DB
	group   *group
	maxOpen int
}

// openLedger makes the buckets, or finds them.
func openLedger(db *bbolt.DB, maxOpen int) (*ledger, error) {
	if db.NoSync || db.IsReadOnly() {
		return nil, errors.New("the file must be writable and synced: a vote must survive a power cut")
	}
	err := db.Update(func(tx *bbolt.Tx) error {
		root, err := tx.CreateBucketIfNotExists(rootName)
		if err != nil {
			return err
		}
		switch was := root.Get(formatName); string(was) {
		case format:
		case "":
			err = root.Put(formatName, []byte(format))
		default:
			err = fmt.Errorf("its format is %q, this version knows %q", was, format)
		}
		_, err1 := root.CreateBucketIfNotExists(holdsName)
		_, err2 := root.CreateBucketIfNotExists(clustersName)
		return errors.Join(err, err1, err2)
	})
	if err != nil {
		return nil, fmt.Errorf("branch ledger in %s: %w", db.Path(), err)
	}
	return &ledger{db: db, group: newGroup(db), maxOpen: maxOpen}, nil
}

// change runs f on a message's branch in a transaction of the file, which other
// branches may share. The message must pass the fence, which it raises. f may run
// several times; its last run is the one that counts. Where f returns an error
// after it wrote something, that is undone; see instead.
func (l *ledger) change(ctx context.Context, m message, f func(*entry) error) error {
	return l.group.do(ctx, l.unit(m, f, true))
}

// settle runs f on a branch whose message passed the fence when its work began.
// What became of that work must be written down even if the caller has gone or
// another leader spoke meanwhile.
func (l *ledger) settle(m message, f func(*entry) error) error {
	return l.group.do(context.Background(), l.unit(m, f, false))
}

func (l *ledger) unit(m message, f func(*entry) error, fenced bool) work {
	return func(tx *bbolt.Tx) (bool, error) {
		e, err := l.entry(tx, m)
		if err != nil {
			return true, err
		}
		if fenced {
			err = e.admit(m)
		}
		if err == nil {
			err = f(e)
		}
		var in *instead
		if errors.As(err, &in) {
			return true, &retreat{l.unit(m, in.write, fenced)}
		}
		if err == nil {
			err = e.forget()
		}
		return e.changed, err
	}
}

// instead is what f of change returns to have everything undone that it wrote,
// and write run in its place, in the same commit.
type instead struct{ write func(*entry) error }

func (*instead) Error() string { return "undone" }

// entry is one branch's place in the books, inside one transaction of the file.
type entry struct {
	tx      *bbolt.Tx
	cluster *bbolt.Bucket
	key     branchKey
	fence   Fence
	record  Record
	maxOpen int
	changed bool // whether the transaction has something to commit
}

func (l *ledger) entry(tx *bbolt.Tx, m message) (*entry, error) {
	clusters := tx.Bucket(rootName).Bucket(clustersName)
	e := &entry{tx: tx, key: m.key(), maxOpen: l.maxOpen}
	e.cluster = clusters.Bucket([]byte(m.branch.Cluster))
	if e.cluster == nil {
		e.changed = true
		if err := e.addCluster(clusters, m.branch.Cluster); err != nil {
			return nil, err
		}
	}
	var err error
	if e.fence, err = readFence(e.cluster); err != nil {
		return nil, err
	}
	for _, name := range [][]byte{openName, doneName} {
		raw := e.cluster.Bucket(name).Get(e.key[:])
		if raw == nil {
			continue
		}
		if e.record, err = unmarshalRecord(raw); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *entry) addCluster(clusters *bbolt.Bucket, id string) error {
	known := 0
	err := clusters.ForEachBucket(func([]byte) error { known++; return nil })
	if err != nil {
		return err
	}
	if known >= maxClusters {
		return ErrClusters
	}
	if e.cluster, err = clusters.CreateBucket([]byte(id)); err != nil {
		return err
	}
	_, err = e.cluster.CreateBucket(openName)
	_, err2 := e.cluster.CreateBucket(doneName)
	return errors.Join(err, err2)
}

// admit refuses a message of an older epoch and raises the fence by any other
// (rules R8 and R11).
func (e *entry) admit(m message) error {
	raised, err := e.fence.admit(m)
	if err != nil || raised == e.fence {
		return err
	}
	e.fence = raised
	e.changed = true
	return e.cluster.Put(fenceName, raised.marshal())
}

// room refuses a new branch where too many are open (rule R14). It is asked before
// anything is done for the branch, so that a refusal costs nothing.
func (e *entry) room() error {
	if e.record.State.Open() || e.cluster.Bucket(openName).Sequence() < uint64(e.maxOpen) {
		return nil
	}
	return fmt.Errorf("%w: %d", errFull, e.maxOpen)
}

// put writes the branch's record, in the bucket where it belongs. A record at its
// end keeps neither payload nor holds.
func (e *entry) put(r Record) error {
	e.changed = true
	open, done := e.cluster.Bucket(openName), e.cluster.Bucket(doneName)
	if !r.State.Open() {
		if err := e.release(); err != nil {
			return err
		}
		r.Payload, r.Holds = nil, nil
	}
	raw, err := r.marshal()
	if err != nil {
		return err
	}
	was := e.record.State.Open()
	e.record = r
	switch {
	case was && !r.State.Open():
		err = errors.Join(open.Delete(e.key[:]), open.SetSequence(open.Sequence()-1), done.Put(e.key[:], raw))
	case !r.State.Open():
		err = done.Put(e.key[:], raw)
	case !was:
		err = errors.Join(open.SetSequence(open.Sequence()+1), open.Put(e.key[:], raw))
	default:
		err = open.Put(e.key[:], raw)
	}
	return err
}

// answer is what the books say to an end, if they know. Where that closes the
// branch, it is written.
func (e *entry) answer(how ending, m message) (answer error, known bool, err error) {
	known, closing, answer := how.answer(e.record, e.fence.expired(m.id))
	if closing != nil {
		err = e.put(*closing)
	}
	return answer, known, err
}

// release gives back what the branch holds.
func (e *entry) release() error {
	holds := e.tx.Bucket(rootName).Bucket(holdsName)
	for _, name := range e.record.Holds {
		if err := holds.Delete([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}

// forget drops finished branches that lie before the horizon, the oldest first
// (rule R11). What it leaves, the next write finds. It comes after the entry's own
// change, so that a message never forgets what it asks about.
func (e *entry) forget() error {
	done := e.cluster.Bucket(doneName)
	var old []branchKey
	c := done.Cursor()
	for k, _ := c.First(); k != nil && len(old) < forgetAtOnce && e.fence.expired(branchKey(k).txid()); k, _ = c.Next() {
		old = append(old, branchKey(k))
	}
	for _, k := range old {
		e.changed = true
		if err := done.Delete(k[:]); err != nil {
			return err
		}
	}
	return nil
}

// look reads a branch's record, without a fence.
func (l *ledger) look(_ context.Context, m message) (r Record, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		cluster := tx.Bucket(rootName).Bucket(clustersName).Bucket([]byte(m.branch.Cluster))
		if cluster == nil {
			return nil
		}
		key := m.key()
		raw := cluster.Bucket(openName).Get(key[:])
		if raw == nil {
			raw = cluster.Bucket(doneName).Get(key[:])
		}
		if raw == nil {
			return nil
		}
		r, err = unmarshalRecord(raw)
		return err
	})
	return r, err
}

// branchKey is a branch's key in its cluster's buckets.
type branchKey [txidSize + 2]byte

func (k branchKey) txid() txid  { return txid(k[:txidSize]) }
func (k branchKey) number() int { return int(binary.BigEndian.Uint16(k[txidSize:])) }

// open lists the branches that wait for their decision, oldest first.
func (l *ledger) open(_ context.Context, cluster string) (open []Branch, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(rootName).Bucket(clustersName).Bucket([]byte(cluster))
		if b == nil {
			return nil
		}
		return b.Bucket(openName).ForEach(func(k, _ []byte) error {
			key := branchKey(k)
			open = append(open, Branch{Cluster: cluster, TxID: key.txid().String(), Number: key.number()})
			return nil
		})
	})
	return open, err
}

// broken is closed when a commit to the file has failed, and failure then says how.
func (l *ledger) broken() <-chan struct{} { return l.group.broken }
func (l *ledger) failure() error          { return l.group.failed }

func (f Fence) marshal() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, f.Epoch), uint64(f.Horizon))
}

func readFence(cluster *bbolt.Bucket) (Fence, error) {
	switch raw := cluster.Get(fenceName); len(raw) {
	case 0:
		return Fence{}, nil
	case 16:
		return Fence{Epoch: binary.BigEndian.Uint64(raw), Horizon: int64(binary.BigEndian.Uint64(raw[8:]))}, nil
	default:
		return Fence{}, fmt.Errorf("the fence in the file has %d bytes, want 16", len(raw))
	}
}
