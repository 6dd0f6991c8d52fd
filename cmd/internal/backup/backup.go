// Package backup is the form of a file that holds a copy of a cluster's state.
//
// It owns the frame: a header that says whose state it is and of when, the state in
// chunks with a checksum each, so that damage is told with its place, and an end with
// size and digest, without which the file was cut. What is in the chunks is the state
// machine's own, and opaque here.
package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"
)

// The form, all numbers big-endian:
//
//	magic    8 bytes
//	version  4
//	header   a frame of JSON
//	chunk    a frame of the state; as many as there are
//	         a frame of no bytes
//	end      a frame of JSON
//
// A frame is its length in 4 bytes, so many bytes, and the CRC-32C of both.
const (
	magic   = "DECRSNAP"
	version = 1
	// maxFrame bounds a frame, so that a damaged length takes no memory.
	maxFrame = 4 << 20
	// chunkBytes is what a Writer puts into a chunk.
	chunkBytes = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header says what a file holds.
type Header struct {
	Cluster string    `json:"cluster"`
	Index   uint64    `json:"index"` // of the last log entry in the state
	Epoch   uint64    `json:"epoch"`
	Time    time.Time `json:"cluster_time"`
	Node    string    `json:"node"`    // that took it
	Version string    `json:"version"` // of that node's binary
	Level   uint32    `json:"level"`   // what a binary must read to restore it
	Saved   time.Time `json:"saved"`   // by the clock of who saved it
}

// End is what the state came to.
type End struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ErrNotASnapshot is a file that does not begin like one.
var ErrNotASnapshot = errors.New("it is not a snapshot that decree saved")

// DamageError is a file that is not as it was written.
type DamageError struct {
	Offset int64  // of the byte behind which it is damaged, in the file
	What   string // what is wrong there
}

func (e *DamageError) Error() string { return fmt.Sprintf("damaged at byte %d: %s", e.Offset, e.What) }

// Writer writes a file. Its first error stands.
type Writer struct {
	to  *bufio.Writer
	buf []byte
	sum hash.Hash
	n   int64
}

// NewWriter writes what comes before the state.
func NewWriter(to io.Writer, h Header) (*Writer, error) {
	w := &Writer{to: bufio.NewWriterSize(to, 64<<10), sum: sha256.New()}
	if _, err := w.to.WriteString(magic); err != nil {
		return nil, err
	}
	if _, err := w.to.Write(binary.BigEndian.AppendUint32(nil, version)); err != nil {
		return nil, err
	}
	return w, w.json(h)
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	w.sum.Write(p)
	w.n += int64(len(p))
	w.buf = append(w.buf, p...)
	for len(w.buf) >= chunkBytes {
		if err := w.frame(w.buf[:chunkBytes]); err != nil {
			return 0, err
		}
		w.buf = append(w.buf[:0], w.buf[chunkBytes:]...)
	}
	return len(p), nil
}

// Close ends the file. It does not close what the file is written to.
func (w *Writer) Close() (End, error) {
	if len(w.buf) > 0 {
		if err := w.frame(w.buf); err != nil {
			return End{}, err
		}
	}
	if err := w.frame(nil); err != nil {
		return End{}, err
	}
	end := End{Bytes: w.n, SHA256: hex.EncodeToString(w.sum.Sum(nil))}
	return end, errors.Join(w.json(end), w.to.Flush())
}

func (w *Writer) json(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.frame(raw)
}

func (w *Writer) frame(p []byte) error {
	length := binary.BigEndian.AppendUint32(nil, uint32(len(p))) //nolint:gosec // at most maxFrame
	sum := crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, p)
	for _, part := range [][]byte{length, p, binary.BigEndian.AppendUint32(nil, sum)} {
		if _, err := w.to.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// Reader reads a file's state. It hands out no byte whose checksum it has not verified,
// and io.EOF only once the end agrees.
type Reader struct {
	Header Header

	from *bufio.Reader
	at   int64 // read from the file
	rest []byte
	sum  hash.Hash
	n    int64
	end  *End // once all is read
}

// NewReader reads what comes before the state. The errors are ErrNotASnapshot,
// DamageErrors, and those of from.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{from: bufio.NewReaderSize(from, 64<<10), sum: sha256.New()}
	start := make([]byte, len(magic)+4)
	if _, err := io.ReadFull(r.from, start); err != nil || !bytes.HasPrefix(start, []byte(magic)) {
		return nil, ErrNotASnapshot
	}
	r.at = int64(len(start))
	if v := binary.BigEndian.Uint32(start[len(magic):]); v != version {
		return nil, fmt.Errorf("%w of version %d, which this program reads: it has version %d", ErrNotASnapshot, version, v)
	}
	return r, r.json("the header", &r.Header)
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.end != nil {
			return 0, io.EOF
		}
		chunk, err := r.frame("the state")
		if err != nil {
			return 0, err
		}
		if len(chunk) == 0 {
			if err := r.finish(); err != nil {
				return 0, err
			}
			continue
		}
		r.sum.Write(chunk)
		r.n += int64(len(chunk))
		r.rest = chunk
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// End is what the file says at its end, once Read has answered io.EOF.
func (r *Reader) End() End {
	if r.end == nil {
		return End{}
	}
	return *r.end
}

func (r *Reader) finish() error {
	var end End
	if err := r.json("the end", &end); err != nil {
		return err
	}
	if got := (End{r.n, hex.EncodeToString(r.sum.Sum(nil))}); got != end {
		return &DamageError{r.at, fmt.Sprintf("the end tells of %d bytes with SHA-256 %s, there are %d with %s", end.Bytes, end.SHA256, got.Bytes, got.SHA256)}
	}
	if _, err := r.from.ReadByte(); !errors.Is(err, io.EOF) {
		return &DamageError{r.at, "something follows the end"}
	}
	r.end = &end
	return nil
}

func (r *Reader) json(what string, v any) error {
	raw, err := r.frame(what)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &DamageError{r.at, fmt.Sprintf("%s can't be read: %v", what, err)}
	}
	return nil
}

func (r *Reader) frame(what string) ([]byte, error) {
	start := r.at
	var length [4]byte
	if err := r.full(what, start, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxFrame {
		return nil, &DamageError{start, fmt.Sprintf("%s has a part of %d bytes, at most %d", what, n, maxFrame)}
	}
	p := make([]byte, int(n)+4)
	if err := r.full(what, start, p); err != nil {
		return nil, err
	}
	content := p[:n]
	if sum := crc32.Update(crc32.Checksum(length[:], castagnoli), castagnoli, content); sum != binary.BigEndian.Uint32(p[n:]) {
		return nil, &DamageError{start, fmt.Sprintf("a checksum of %s is wrong in the next %d bytes", what, n+8)}
	}
	return content, nil
}

// full reads a part of the frame that begins at start.
func (r *Reader) full(what string, start int64, p []byte) error {
	n, err := io.ReadFull(r.from, p)
	r.at += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &DamageError{start, fmt.Sprintf("the file ends at byte %d, within %s: it was cut there, or a length is wrong", r.at, what)}
	}
	return err
}
