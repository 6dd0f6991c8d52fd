package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Errors of Open that a caller may branch on.
var (
	// ErrLocked means that another process, or another Store, has the file open.
	ErrLocked = errors.New("the file is in use by another process")
	// ErrForeign means that the file is something else than a store of this
	// package.
	ErrForeign = errors.New("not a decree kv file")
	// ErrDamaged means that the file is one of ours and is not whole.
	ErrDamaged = errors.New("the file is damaged")
)

// The buckets of a file.
var (
	dataBucket    = []byte("data")     // key -> value, committed
	stagedBucket  = []byte("staged")   // branch -> stage, prepared
	outcomeBucket = []byte("outcomes") // branch -> outcome, finished and remembered
	metaBucket    = []byte("meta")     // format; cluster -> fence
)

var (
	formatKey = []byte("format")
	format    = []byte("decree-kv 1")
)

const (
	// lockPatience is how long Open waits for the file's lock when its context
	// allows more: a predecessor that is shutting down needs some milliseconds,
	// and a leader that opens its participants must not wait for one of them.
	lockPatience = 250 * time.Millisecond
	// mapSize is the address space that is set aside for the file at first. A
	// reader in the middle of an audit holds up a writer that has to map more, so
	// that should be rare; it costs no memory.
	mapSize = 256 << 20
	// inspections is how often a file has to look bad: its lock is not held yet,
	// and one that is in use may change between two reads. A look takes
	// microseconds and a commit hundreds of them.
	inspections = 3
)

// openFile opens or creates the bbolt file and makes sure that it is ours.
func openFile(ctx context.Context, path string, log hclog.Logger) (db *bbolt.DB, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fresh, err := inspect(path)
	for range inspections - 1 {
		if err == nil {
			break
		}
		fresh, err = inspect(path)
	}
	if err != nil {
		return nil, err
	}
	patience := lockPatience
	if deadline, ok := ctx.Deadline(); ok {
		patience = max(min(patience, time.Until(deadline)), 1) // 0 would wait for ever
	}
	err = guard(log, func() error {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:         patience,
			FreelistType:    bbolt.FreelistMapType,
			InitialMmapSize: mapSize,
		})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%w (waited %s)", ErrLocked, patience.Round(time.Millisecond))
	case err != nil:
		return nil, err
	}
	if err := guard(log, func() error { return initialise(db) }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if fresh {
		// The file's data is synced by bbolt; its name is the directory's to keep.
		err = syncDirectory(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// initialise lays out an empty file, and checks the format of any other.
func initialise(db *bbolt.DB) error {
	var found []byte
	empty := true
	err := db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(metaBucket); b != nil {
			found = append(found, b.Get(formatKey)...)
		}
		first, _ := tx.Cursor().First()
		empty = first == nil
		return nil
	})
	switch {
	case err != nil:
		return err
	case string(found) == string(format):
		return nil
	case found != nil:
		return fmt.Errorf("%w of a version that this one reads: format %.64q, want %q", ErrForeign, found, format)
	case !empty:
		return fmt.Errorf("%w: a bbolt file with other contents", ErrForeign)
	}
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{dataBucket, stagedBucket, outcomeBucket, metaBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return tx.Bucket(metaBucket).Put(formatKey, format)
	})
}

// The head of a bbolt file: two meta pages, each a page header and a meta
// record. See go.etcd.io/bbolt/internal/common.
const (
	pageHeaderSize = 16
	metaSize       = 64
	metaMagic      = 0xED0CDAED
	metaVersion    = 2
	freelistFlag   = 0x10
	noFreelist     = math.MaxUint64
)

// inspect looks at a file before bbolt maps it, and tells of an absent or empty
// one that it is fresh. Where a file was cut short or overwritten, bbolt would
// panic while it holds the lock, or the process would die of reading the map
// beyond the end of the file, and no error would tell why.
func inspect(path string) (fresh bool, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close() //nolint:errcheck // only read
	info, err := file.Stat()
	switch {
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%w: not a regular file", ErrForeign)
	case info.Size() == 0:
		return true, nil
	}
	latest, ok := latestMeta(file)
	switch want := int64(latest.pages) * int64(latest.pageSize); {
	case !ok:
		return false, fmt.Errorf("%w, or its head is destroyed", ErrForeign)
	case latest.freelist == noFreelist:
		return false, fmt.Errorf("%w: a bbolt file with other settings", ErrForeign)
	case info.Size() < want:
		return false, fmt.Errorf("%w: it has %d bytes of %d", ErrDamaged, info.Size(), want)
	case !isFreelist(file, latest):
		return false, fmt.Errorf("%w: its list of free pages is destroyed", ErrDamaged)
	}
	return false, nil
}

type meta struct {
	pageSize uint32
	freelist uint64 // the page of the freelist
	pages    uint64
	txid     uint64
}

// latestMeta is the younger of the meta records that are whole, by which bbolt
// goes; false means that none is.
func latestMeta(file *os.File) (latest meta, ok bool) {
	first, ok := readMeta(file, 0)
	at := int64(os.Getpagesize())
	if ok {
		at = int64(first.pageSize)
	}
	second, alsoOK := readMeta(file, at)
	if !ok || alsoOK && second.txid > first.txid {
		return second, alsoOK
	}
	return first, true
}

func readMeta(file *os.File, at int64) (meta, bool) {
	var page [pageHeaderSize + metaSize]byte
	if _, err := file.ReadAt(page[:], at); err != nil {
		return meta{}, false
	}
	m := page[pageHeaderSize:]
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8]) //nolint:errcheck // a hash never fails to write
	order := binary.NativeEndian
	if order.Uint32(m) != metaMagic || order.Uint32(m[4:]) != metaVersion || order.Uint64(m[56:]) != sum.Sum64() {
		return meta{}, false
	}
	return meta{
		pageSize: order.Uint32(m[8:]),
		freelist: order.Uint64(m[32:]),
		pages:    order.Uint64(m[40:]),
		txid:     order.Uint64(m[48:]),
	}, true
}

func isFreelist(file *os.File, m meta) bool {
	var header [pageHeaderSize]byte
	if _, err := file.ReadAt(header[:], int64(m.freelist)*int64(m.pageSize)); err != nil {
		return false
	}
	order := binary.NativeEndian
	return order.Uint64(header[:]) == m.freelist && order.Uint16(header[8:])&freelistFlag != 0
}

// guard turns a panic over the file's contents into an error: a participant's
// broken file is that participant's trouble, and its process may serve others.
// The stack goes to the log, where it helps whoever reads it.
func guard(log hclog.Logger, fn func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	defer func() {
		if p := recover(); p != nil {
			log.Debug("panic over the contents of the file", "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return fn()
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
