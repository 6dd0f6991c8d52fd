package cluster

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"
)

// The format of the wal's files, which its README describes: a header, then frames. A
// batch is what was written between two syncs: frames that hold an entry each,
// perhaps one with the index of all, and one that commits, with a checksum of the
// batch; the first batch includes the header.
const (
	segmentMagic  = 0x58eb6b0d // and version 0
	segmentHeader = 32
	frameHeader   = 8

	frameEntry  = 1
	frameIndex  = 2
	frameCommit = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// scan is what a file of the wal holds, up to the last whole batch.
type scan struct {
	end     int64  // of the last whole batch
	entries uint64 // in the whole batches
	index   uint64 // where the index begins; 0 where no whole batch has one
	torn    bool   // something follows that is not a whole batch
}

// errDamaged: a batch that is not whole is followed by one that is. Each is synced
// before the next is written, so no crash leaves that.
var errDamaged = errors.New("the file is damaged")

// scanSegment reads a file of the wal from its beginning to its end. The library reads
// no checksum but the last one, and takes what it can't read for the end of the log.
func scanSegment(file io.ReaderAt, size int64, info types.SegmentInfo) (scan, error) {
	var s scan
	in := &batches{file: bufio.NewReaderSize(io.NewSectionReader(file, 0, size), 1<<18), left: size}
	header := make([]byte, segmentHeader)
	if err := in.read(header); err != nil {
		return s, ignoreEnd(err)
	}
	broken := false
	var now scan // with the batch under way
	for {
		kind, payload, err := in.frame()
		switch {
		case errors.Is(err, errNoFrame):
			s.torn, err = in.rest(s.end)
			return s, err
		case err != nil:
			return s, err
		case kind == frameEntry:
			now.entries++
		case kind == frameIndex:
			now.index = uint64(in.at) - uint64(payload)
		case in.whole:
			if broken {
				return s, fmt.Errorf("%w: byte %d", errDamaged, s.end)
			}
			if err := checkSegmentHeader(header, info); err != nil {
				return s, err
			}
			now.end = in.at
			s = now
		default:
			broken = true
		}
	}
}

func checkSegmentHeader(header []byte, info types.SegmentInfo) error {
	if binary.LittleEndian.Uint64(header) != segmentMagic || binary.LittleEndian.Uint64(header[8:]) != info.BaseIndex ||
		binary.LittleEndian.Uint64(header[16:]) != info.ID || binary.LittleEndian.Uint64(header[24:]) != info.Codec {
		return fmt.Errorf("%w: it is not the file that should be there", errDamaged)
	}
	return nil
}

// batches reads frames, and keeps the checksum of the batch that it is in.
type batches struct {
	file *bufio.Reader
	left int64 // bytes to the end of the file
	at   int64
	sum  uint32
	// whole says of the last commit that its batch is what was written.
	whole bool
}

// errNoFrame: what follows is no frame. All zeros are none.
var errNoFrame = errors.New("no frame")

func ignoreEnd(err error) error {
	if errors.Is(err, errNoFrame) {
		return nil
	}
	return err
}

func (b *batches) read(p []byte) error {
	if b.left < int64(len(p)) {
		return errNoFrame
	}
	n, err := io.ReadFull(b.file, p)
	b.at, b.left = b.at+int64(n), b.left-int64(n)
	b.sum = crc32.Update(b.sum, castagnoli, p[:n])
	return err
}

// frame reads the next frame, and tells its kind and the bytes of its payload with the
// padding.
func (b *batches) frame() (kind byte, payload uint32, err error) {
	head, err := b.file.Peek(frameHeader)
	if b.left < frameHeader || errors.Is(err, io.EOF) {
		return 0, 0, errNoFrame
	}
	if err != nil {
		return 0, 0, err
	}
	kind, value := head[0], binary.LittleEndian.Uint32(head[4:])
	switch kind {
	case frameCommit:
		b.whole = b.sum == value
		err := b.skip(frameHeader)
		b.sum = 0
		return kind, 0, err
	case frameEntry, frameIndex:
		padded := (int64(value) + frameHeader - 1) / frameHeader * frameHeader
		if padded+frameHeader > b.left {
			return 0, 0, errNoFrame
		}
		return kind, uint32(padded), b.skip(frameHeader + padded) //nolint:gosec // below the file's size
	default:
		return 0, 0, errNoFrame
	}
}

// skip reads so many bytes for their checksum alone.
func (b *batches) skip(n int64) error {
	piece := make([]byte, min(n, 1<<16))
	for n > 0 {
		piece = piece[:min(n, int64(len(piece)))]
		if err := b.read(piece); err != nil {
			return err
		}
		n -= int64(len(piece))
	}
	return nil
}

// rest reads what follows the last frame, and reports whether anything but zeros is
// there after end. It fails where there is a whole batch.
func (b *batches) rest(end int64) (torn bool, err error) {
	torn = b.at > end && b.at > segmentHeader
	var word [frameHeader]byte
	committed := false // a commit was passed, so that a batch may begin
	b.sum = 0
	for {
		if err := b.zeros(); err != nil {
			return torn, err
		}
		sum := b.sum
		if err := b.read(word[:]); errors.Is(err, errNoFrame) {
			return torn, nil
		} else if err != nil {
			return torn, err
		}
		if word != [frameHeader]byte{} {
			torn = true
		}
		if word[0] != frameCommit || !bytes.Equal(word[1:4], []byte{0, 0, 0}) {
			continue
		}
		if committed && sum == binary.LittleEndian.Uint32(word[4:]) && sum != 0 {
			return true, fmt.Errorf("%w: byte %d", errDamaged, end)
		}
		committed, b.sum = true, 0
	}
}

// noBytes is a block of zeros.
var noBytes [1 << 12]byte

// zeros passes over blocks that hold nothing. Most of a file does, and word by word that
// takes ten times as long.
func (b *batches) zeros() error {
	for b.at%int64(len(noBytes)) == 0 {
		block, err := b.file.Peek(len(noBytes))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !bytes.Equal(block, noBytes[:]) {
			return nil
		}
		if _, err := b.file.Discard(len(block)); err != nil {
			return err
		}
		b.at, b.left = b.at+int64(len(block)), b.left-int64(len(block))
		b.sum = crc32.Update(b.sum, castagnoli, noBytes[:])
	}
	return nil
}

// inspectWAL reads every file of a wal, and changes none. It reports whether there is
// an entry, a term or a vote.
func inspectWAL(dir string) (used bool, err error) {
	path := filepath.Join(dir, metadb.FileName)
	state, used, err := inspectMeta(path)
	if err != nil {
		return false, err
	}
	for i, info := range state.Segments {
		s, err := scanFile(dir, info)
		if err != nil {
			return false, err
		}
		tail := i == len(state.Segments)-1
		if !tail && info.SealTime.IsZero() || !info.SealTime.IsZero() && !s.holds(info) {
			return false, fmt.Errorf("%w: %s lacks entries", ErrCorruptDir, filepath.Join(dir, segment.FileName(info)))
		}
		used = used || s.entries > 0 && info.BaseIndex+s.entries > info.MinIndex
	}
	return used, nil
}

// holds reports whether a file that is complete holds what it should.
func (s scan) holds(info types.SegmentInfo) bool {
	return info.BaseIndex+s.entries > info.MaxIndex && s.index == info.IndexStart && s.index > 0
}

// inspectMeta reads the list of files, and whether there is a term or a vote.
func inspectMeta(path string) (state types.PersistentState, used bool, err error) {
	defer explainPanic(path, &err)()
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return state, false, errors.Join(fmt.Errorf("%w: %s is gone", ErrCorruptDir, path), err)
	}
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return state, false, explainOpen(path, err)
	}
	defer db.Close() //nolint:errcheck // it was only read
	err = db.View(func(tx *bbolt.Tx) error {
		meta, stable := tx.Bucket([]byte(metadb.MetaBucket)), tx.Bucket([]byte(metadb.StableBucket))
		if meta == nil || stable == nil {
			return fmt.Errorf("%w: %s is not a wal's", ErrCorruptDir, path)
		}
		if key, _ := stable.Cursor().First(); key != nil {
			used = true
		}
		raw := meta.Get([]byte(metadb.MetaKey))
		if raw == nil {
			return nil
		}
		if err := json.Unmarshal(raw, &state); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCorruptDir, path, err)
		}
		return nil
	})
	return state, used, err
}

// scanFile scans one file of a wal.
func scanFile(dir string, info types.SegmentInfo) (s scan, err error) {
	path := filepath.Join(dir, segment.FileName(info))
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, fmt.Errorf("%w: %s is gone", ErrCorruptDir, path)
	}
	if err != nil {
		return s, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	stat, err := file.Stat()
	if err != nil {
		return s, err
	}
	s, err = scanSegment(file, min(stat.Size(), math.MaxUint32), info)
	if errors.Is(err, errDamaged) {
		return s, fmt.Errorf("%w: %s: %w", ErrCorruptDir, path, err)
	}
	return s, err
}

// repair completes what a crash left half done, for the library does not: after an
// append that filled the last file and before the next file is listed, or in the midst
// of such an append, it refuses every append for ever; and what is left of an append
// that was not completed it leaves lying behind the next ones.
func (m *walMeta) repair(dir string) error {
	state, err := m.Load(dir)
	if err != nil {
		return err
	}
	n := len(state.Segments)
	if n == 0 || !state.Segments[n-1].SealTime.IsZero() {
		return nil
	}
	tail := &state.Segments[n-1]
	s, err := scanFile(dir, *tail)
	if err != nil {
		return err
	}
	if s.torn {
		if err := m.on.clear(segment.FileName(*tail), s.end); err != nil {
			return err
		}
	}
	if s.index == 0 {
		return nil
	}
	tail.SealTime, tail.IndexStart, tail.MaxIndex = time.Now(), s.index, tail.BaseIndex+s.entries-1
	next := types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: tail.MaxIndex + 1, MinIndex: tail.MaxIndex + 1,
		SizeLimit: uint32(m.on.size), Codec: tail.Codec, CreateTime: time.Now(), //nolint:gosec // a constant
	}
	state.NextSegmentID++
	state.Segments = append(state.Segments, next)
	return m.CommitState(state)
}

// clear overwrites a file with zeros from an offset to its end.
func (s segments) clear(name string, from int64) error {
	file, err := s.OpenWriter(s.dir, name)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it is synced
	piece := make([]byte, 1<<16)
	for {
		n, err := file.ReadAt(piece, from)
		if n > 0 && !zero(piece[:n]) {
			if _, err := file.WriteAt(make([]byte, n), from); err != nil {
				return err
			}
		}
		from += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return file.Sync()
		case err != nil:
			return err
		}
	}
}

func zero(p []byte) bool { return bytes.Count(p, []byte{0}) == len(p) }
