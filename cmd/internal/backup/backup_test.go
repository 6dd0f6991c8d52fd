package backup

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// What is proven here: a file gives back what was put into it, whatever the sizes, and no
// byte of it can be changed, left out or added without being told, with its place.

func saved(t *testing.T, size int) (file, state []byte, h Header) {
	t.Helper()
	state = make([]byte, size)
	for i := range state {
		state[i] = byte(rand.Uint32())
	}
	h = Header{Cluster: "c", Index: 7, Epoch: 3, Time: time.Unix(1, 0).UTC(), Node: "n1", Version: "v", Level: 2, Saved: time.Unix(2, 0).UTC()}
	var b bytes.Buffer
	w, err := NewWriter(&b, h)
	if err != nil {
		t.Fatal(err)
	}
	for rest := state; len(rest) > 0; {
		n := min(len(rest), 1+rand.IntN(300_000))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), state, h
}

func read(file []byte) (state []byte, h Header, err error) {
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, h, err
	}
	state, err = io.ReadAll(r)
	return state, r.Header, err
}

func TestReadsWhatWasWritten(t *testing.T) {
	for _, size := range []int{0, 1, chunkBytes - 1, chunkBytes, chunkBytes + 1, 3*chunkBytes + 12345} {
		file, state, h := saved(t, size)
		got, header, err := read(file)
		if err != nil || !bytes.Equal(got, state) || !reflect.DeepEqual(header, h) {
			t.Errorf("%d bytes: %v, %+v", size, err, header)
		}
	}
}

func TestEveryDamageIsFound(t *testing.T) {
	file, _, _ := saved(t, 3000)
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << rand.IntN(8)
		checkDamage(t, bad, i)
		checkDamage(t, file[:i], i)
	}
	checkDamage(t, append(bytes.Clone(file), 0), len(file))
}

// checkDamage holds that damage at a byte is told, at a place not behind it.
func checkDamage(t *testing.T, file []byte, at int) {
	t.Helper()
	_, _, err := read(file)
	var damage *DamageError
	switch {
	case errors.Is(err, ErrNotASnapshot) && at < len(magic)+4:
	case !errors.As(err, &damage):
		t.Errorf("damage at byte %d: %v", at, err)
	case damage.Offset > int64(at):
		t.Errorf("damage at byte %d is told at %d", at, damage.Offset)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(magic + "\x00\x00\x00\x01\x00\x00\x00\x02{}"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _, _ = read(b) // neither panics nor takes memory that is not there
	})
}
