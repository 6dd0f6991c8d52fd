// Package access is the file in which a node's operator says by what tokens callers are
// known, and how much each may ask for. It is read again while it is used.
//
// A line is an identity and what is said of it; what follows a # is for people:
//
//	operator/ada  token=sha256:9f86d081...
//	client/web    token=sha256:2c26b46b... rate=500 burst=1000 in-flight=200
//	client/batch  rate=50                   # known by its certificate
//
// A token stands there as its SHA-256. That is enough because a token is 32 random
// bytes ([NewToken]) and no password: there are too many to be tried, so that a slow
// hash would only make each call slow. An identity may have several lines, with a token
// each: that is how a token is replaced.
//
// Limits hold for an identity at each node that it calls. Whoever has none of its own
// has the node's defaults.
package access

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/transport/certs"
)

const (
	// lookEvery paces looking at the file again.
	lookEvery = 2 * time.Second
	// maxFile bounds it in bytes: some tens of thousands of lines.
	maxFile = 4 << 20
	// tokenBytes is how many random bytes a token has: as many as its hash.
	tokenBytes = sha256.Size
	// tokenPrefix lets people, and programs that look for secrets in the wrong places,
	// know a token when they see one.
	tokenPrefix = "decree_"
	hashPrefix  = "sha256:"
)

// Limits bound what an identity may ask of one node. Zero means no bound.
type Limits struct {
	Rate     float64 // calls a second, a submission of a stream counting as one
	Burst    int     // calls at once after a pause; 0 means a second's
	InFlight int     // calls under way
}

// hash is that of a token.
type hash [sha256.Size]byte

// table is what the file said at one time. It does not change.
type table struct {
	tokens map[hash]certs.Identity
	limits map[certs.Identity]Limits
}

// File is the content of an access file as it was last read well. A nil File has no
// tokens and no limits. Its methods may be called concurrently.
type File struct {
	path string // set once
	log  hclog.Logger

	table atomic.Pointer[table]
	// Reads counts how often another content was read, so that who has asked may know
	// that the answer still holds.
	reads atomic.Uint64

	mu       sync.Mutex
	raw      []byte // guarded by mu
	complain string // guarded by mu
}

// Open reads an access file.
func Open(path string, log hclog.Logger) (*File, error) {
	if log == nil {
		log = hclog.NewNullLogger()
	}
	f := &File{path: path, log: log}
	return f, f.Reload()
}

// Reload reads the file now. After an error, which names every bad line, what was read
// before stays in use.
func (f *File) Reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	raw, err := readFile(f.path)
	first := f.table.Load() == nil
	if err == nil && !first && bytes.Equal(raw, f.raw) {
		f.report(nil)
		return nil
	}
	var t *table
	if err == nil {
		t, err = parse(raw)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", f.path, err)
	}
	if !first {
		f.report(err)
	}
	if err != nil {
		return err
	}
	f.raw = raw
	f.table.Store(t)
	f.reads.Add(1)
	if !first {
		f.log.Info("the access file was read anew", "file", f.path, "tokens", len(t.tokens))
	}
	return nil
}

// report logs a failure once, and its end.
func (f *File) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == f.complain:
	case err != nil:
		f.log.Warn("the access file can't be read anew: what was read before stays in use", "error", err)
	default:
		f.log.Info("the access file can be read again", "file", f.path)
	}
	f.complain = text
}

// Watch reads the file again every few seconds until ctx ends.
func (f *File) Watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.Reload() //nolint:errcheck,gosec // reported
		case <-ctx.Done():
			return
		}
	}
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // an operator named it
	if err != nil {
		return nil, errors.Unwrap(err) // the path is named by the caller
	}
	defer file.Close() //nolint:errcheck // it was only read
	raw, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return raw, err
}

// Identify is who a token is for.
func (f *File) Identify(token string) (certs.Identity, bool) {
	if f == nil {
		return certs.Identity{}, false
	}
	who, ok := f.table.Load().tokens[sha256.Sum256([]byte(token))]
	return who, ok
}

// Limits are an identity's own; false where it has none.
func (f *File) Limits(who certs.Identity) (Limits, bool) {
	if f == nil {
		return Limits{}, false
	}
	l, ok := f.table.Load().limits[who]
	return l, ok
}

// Reads changes whenever another content was read.
func (f *File) Reads() uint64 {
	if f == nil {
		return 0
	}
	return f.reads.Load()
}

// NewToken makes a token, and the line that makes it known, without a line end.
func NewToken(who certs.Identity) (token, line string) {
	secret := make([]byte, tokenBytes)
	rand.Read(secret) //nolint:errcheck // never fails
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(token))
	return token, who.String() + " token=" + hashPrefix + hex.EncodeToString(sum[:])
}

// parse reads all lines, and tells all that is wrong. It quotes no token, which somebody
// may have written in the place of its hash.
func parse(raw []byte) (*table, error) {
	t := &table{tokens: map[hash]certs.Identity{}, limits: map[certs.Identity]Limits{}}
	var problems []error
	number := 0
	for line := range strings.Lines(string(raw)) {
		number++
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if err := t.add(fields); err != nil {
			problems = append(problems, fmt.Errorf("line %d: %w", number, err))
		}
	}
	return t, errors.Join(problems...)
}

// add takes one line in.
func (t *table) add(fields []string) error {
	who, err := certs.Parse(fields[0])
	if err != nil {
		return err
	}
	var limits Limits
	limited, seen := false, map[string]bool{}
	for _, field := range fields[1:] {
		name, value, _ := strings.Cut(field, "=")
		if seen[name] {
			return fmt.Errorf("%.20s stands there twice", name)
		}
		seen[name] = true
		var err error
		switch name {
		case "token":
			err = t.addToken(who, value)
		case "rate":
			limits.Rate, err = positive(value)
		case "burst":
			limits.Burst, err = count(value)
		case "in-flight":
			limits.InFlight, err = count(value)
		default:
			err = errors.New("want token=, rate=, burst= or in-flight=")
		}
		if err != nil {
			return fmt.Errorf("%.20s: %w", name, err)
		}
		limited = limited || name != "token"
	}
	if !limited {
		return nil
	}
	if limits.Burst > 0 && limits.Rate == 0 {
		return errors.New("burst: means nothing without rate")
	}
	if _, twice := t.limits[who]; twice {
		return fmt.Errorf("%s has limits on another line", who)
	}
	t.limits[who] = limits
	return nil
}

func (t *table) addToken(who certs.Identity, value string) error {
	digits, ok := strings.CutPrefix(value, hashPrefix)
	sum, err := hex.DecodeString(digits)
	if !ok || err != nil || len(sum) != sha256.Size {
		return errors.New("want sha256: and 64 hexadecimal digits, and not the token itself")
	}
	if who.Role == certs.Node {
		return errors.New("a node is known by its certificate, and by nothing else")
	}
	h := hash(sum)
	if other, twice := t.tokens[h]; twice {
		return fmt.Errorf("the same as one of %s", other)
	}
	t.tokens[h] = who
	return nil
}

func positive(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 0) || f > 1e9 {
		return 0, errors.New("want calls a second, more than zero")
	}
	return f, nil
}

func count(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 {
		return 0, errors.New("want a whole number, more than zero")
	}
	return int(n), nil
}
