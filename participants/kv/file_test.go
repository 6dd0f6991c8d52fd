package kv

// Files that are not ours, not whole or not free are refused in words, and never
// by a crash; and the driver shares what is.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/bbolt"

	"github.com/decree-tx/decree/participants"
)

// written is a closed store with some data, one prepared branch, and its path.
func written(t *testing.T) (path string, waiting participants.Branch) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "kv.db")
	s := openStore(t, path)
	for i := range 50 {
		do(t, s, fmt.Sprintf(`{"op": "put", "key": "key-%d", "value": %q}`, i, strings.Repeat("v", 1000)))
	}
	waiting = branch(`{"op": "put", "key": "held", "value": "1"}`)
	prepare(t, s, waiting)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path, waiting
}

// rewrite changes a closed file's bytes.
func rewrite(t *testing.T, path string, edit func([]byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, edit(content), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// changeRows edits a closed file through bbolt.
func changeRows(t *testing.T, path string, edit func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err == nil {
		err = errors.Join(db.Update(edit), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefusesWhatIsNotAStore(t *testing.T) {
	page := os.Getpagesize()
	noise := make([]byte, 16*page)
	source := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(source.Uint32())
	}
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, path string)
		want  error
		word  string
	}{
		{"ten bytes", func(t *testing.T, path string) {
			rewrite(t, path, func([]byte) []byte { return noise[:10] })
		}, ErrForeign, "head"},
		{"one page", func(t *testing.T, path string) {
			rewrite(t, path, func([]byte) []byte { return noise[:page] })
		}, ErrForeign, "head"},
		{"noise", func(t *testing.T, path string) {
			rewrite(t, path, func([]byte) []byte { return noise })
		}, ErrForeign, "head"},
		{"another program's bbolt file", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			changeRows(t, path, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("logs")); return err })
		}, ErrForeign, "other contents"},
		{"a later format", func(t *testing.T, path string) {
			changeRows(t, path, func(tx *bbolt.Tx) error {
				return tx.Bucket(metaBucket).Put(formatKey, []byte("decree-kv 2"))
			})
		}, ErrForeign, "decree-kv 2"},
		{"cut short", func(t *testing.T, path string) {
			rewrite(t, path, func(b []byte) []byte { return b[:3*page] })
		}, ErrDamaged, "bytes of"},
		{"pages of noise", func(t *testing.T, path string) {
			rewrite(t, path, func(b []byte) []byte { copy(b[2*page:], bytes.Repeat(noise, 100)); return b })
		}, ErrDamaged, ""},
		{"pages of zeros", func(t *testing.T, path string) {
			rewrite(t, path, func(b []byte) []byte { clear(b[2*page:]); return b })
		}, ErrDamaged, ""},
		{"a staged row that is none", func(t *testing.T, path string) {
			changeRows(t, path, func(tx *bbolt.Tx) error {
				return tx.Bucket(stagedBucket).Put(branchKey(branch("")), []byte("{"))
			})
		}, ErrDamaged, "row"},
		{"a key that is no branch", func(t *testing.T, path string) {
			changeRows(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(stagedBucket).Put([]byte("x"), []byte("{}")) })
		}, ErrDamaged, "no branch"},
		{"one key held twice", func(t *testing.T, path string) {
			changeRows(t, path, func(tx *bbolt.Tx) error {
				return tx.Bucket(stagedBucket).Put(branchKey(branch("")), []byte(`{"changes": [{"key": "held"}]}`))
			})
		}, ErrDamaged, "two prepared branches"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path, _ := written(t)
			tc.spoil(t, path)
			for range 2 { // the first leaves no lock behind
				s, err := Open(t.Context(), path, hclog.NewNullLogger())
				if err == nil {
					s.Close() //nolint:errcheck // the test fails anyway
					t.Fatal("opened")
				}
				if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.word) || !strings.Contains(err.Error(), path) {
					t.Fatalf("Open = %v, want %v, %q and the path", err, tc.want, tc.word)
				}
			}
		})
	}
}

// One destroyed meta page is what bbolt keeps two for.
func TestOpenSurvivesOneDestroyedHead(t *testing.T) {
	page := os.Getpagesize()
	for i := range 2 {
		path, _ := written(t)
		rewrite(t, path, func(b []byte) []byte { clear(b[i*page : (i+1)*page]); return b })
		s := openStore(t, path)
		if got := value(t, s, "key-0"); len(got) != 1000 {
			t.Errorf("without page %d, key-0 = %.20s", i, got)
		}
	}
}

// An empty file is what a crash right after creating it leaves.
func TestOpenTakesAnEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	do(t, openStore(t, path), `{"op": "put", "key": "a", "value": "1"}`)
}

func TestOpenElsewhere(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(t.Context(), filepath.Join(dir, "none", "kv.db"), hclog.NewNullLogger()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
	if _, err := Open(t.Context(), dir, hclog.NewNullLogger()); !errors.Is(err, ErrForeign) {
		t.Errorf("a directory: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ended, filepath.Join(dir, "kv.db"), hclog.NewNullLogger()); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// A file that is in use is an error, soon, and is taken once it is free.
func TestOpenOfAFileInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	first := openStore(t, path)
	if _, err := Open(t.Context(), path, hclog.NewNullLogger()); !errors.Is(err, ErrLocked) {
		t.Errorf("Open = %v, want ErrLocked", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Open(ctx, path, hclog.NewNullLogger())
	if !errors.Is(err, ErrLocked) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open = %v, want ErrLocked, or the end of the context on a slow machine", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openStore(t, path)
}

// Participants of one process that name one file share it, however they spell it,
// and the last to close it frees it.
func TestDriverSharesAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kv.db")
	d := new(Driver)
	open := func(path string) participants.Participant {
		p, err := d.Open(t.Context(), participants.Registration{Config: fmt.Appendf(nil, `{"path": %q}`, path)}, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	old, successor := open(path), open(dir+"/./x/../kv.db")
	b := branch(`{"op": "put", "key": "a", "value": "1"}`)
	if _, err := old.Prepare(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second changes nothing
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := successor.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := successor.Close(); err != nil {
		t.Fatal(err)
	}
	if got := value(t, openStore(t, path), "a"); got != "1" {
		t.Errorf("a = %s", got)
	}
}

func TestDriverCheck(t *testing.T) {
	d := new(Driver)
	if err := d.Check([]byte(`{"path": "/var/lib/bank.db"}`)); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct {
		config string
		want   []string
	}{
		{``, []string{"JSON object"}},
		{`{}`, []string{"missing"}},
		{`{"path": ""}`, []string{"missing"}},
		{`{"path": 5}`, []string{"want a string"}},
		{`{"Path": "x", "sync": true}`, []string{`"Path"`, `"sync"`, "missing"}},
		{`{"path": "x"} 1`, []string{"follows"}},
	} {
		err := d.Check([]byte(tc.config))
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Check(%s) = %v, want a word about %s", tc.config, err, want)
			}
		}
	}
	if _, err := d.Open(t.Context(), participants.Registration{Config: []byte(`{}`)}, hclog.NewNullLogger()); err == nil {
		t.Error("opened without a path")
	}
}
