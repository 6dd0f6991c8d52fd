package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// lookEvery paces looking at the files again where they are used, and by Watch: a
	// rotation is in use seconds later, and a storm of handshakes does not read files.
	lookEvery = 2 * time.Second
	// openTries and openPause are how long a certificate and a key that do not fit may
	// take to: of a rotation under way one is replaced before the other.
	openTries = 10
	openPause = 50 * time.Millisecond
	// maxFile bounds a file in bytes: bundles of authorities fit.
	maxFile = 1 << 20
)

// Files are where a certificate, its key and the authorities lie, as PEM.
type Files struct {
	// CA holds the certificates of the authorities that others are verified against.
	// While an authority is replaced it holds the old one and the new. Empty means the
	// system's, for a client.
	CA string
	// Certificate and Key are what is shown to others, the certificate with those
	// between it and its authority. Both are empty for a client that has a token.
	Certificate string
	Key         string
}

// Source is the content of Files as it was last read well. Where the files can't be
// read, or do not fit each other, what was read before stays in use: a rotation replaces
// several files, one after the other. Its methods may be called concurrently.
type Source struct {
	// set once
	files Files
	log   hclog.Logger
	fit   func(*held) error // what else must hold of what is read

	held atomic.Pointer[held]

	mu       sync.Mutex
	looked   time.Time // guarded by mu
	raw      [3][]byte // what held was made of; guarded by mu
	complain string    // the last failure, "" if there was none; guarded by mu
}

// held is what the files said at one time. It does not change.
type held struct {
	authorities []*x509.Certificate
	pool        *x509.CertPool    // nil means the system's
	pair        []tls.Certificate // one, or none
}

// Open reads the files of a client or a participant.
func Open(files Files, log hclog.Logger) (*Source, error) {
	return open(files, log, func(*held) error { return nil })
}

// OpenNode reads the files of a node, which needs all three: a node's certificate that
// one of the authorities has signed.
func OpenNode(files Files, log hclog.Logger) (*Source, error) {
	if files.CA == "" || files.Certificate == "" {
		return nil, errors.New("a node needs a certificate, its key, and the authorities")
	}
	return open(files, log, fitNode)
}

func fitNode(h *held) error {
	leaf := h.pair[0].Leaf
	who, err := Of(leaf)
	if err != nil {
		return err
	}
	if who.Role != Node {
		return fmt.Errorf("the certificate is of %s, and not of a node", who)
	}
	err = verify(h.pool, append([]*x509.Certificate{leaf}, intermediates(h.pair[0])...), x509.ExtKeyUsageServerAuth)
	if err != nil {
		return fmt.Errorf("no authority of the node's own list has signed it for a server: %w", err)
	}
	return nil
}

func intermediates(pair tls.Certificate) (chain []*x509.Certificate) {
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, c)
		}
	}
	return chain
}

func open(files Files, log hclog.Logger, fit func(*held) error) (*Source, error) {
	if log == nil {
		log = hclog.NewNullLogger()
	}
	if (files.Certificate == "") != (files.Key == "") {
		return nil, errors.New("certificate and key: want both or neither")
	}
	s := &Source{files: files, log: log, fit: fit}
	err := s.Reload()
	for tries := 0; tries < openTries && errors.As(err, new(unfit)); tries++ {
		time.Sleep(openPause)
		err = s.Reload()
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the files now. After an error what was read before stays in use.
func (s *Source) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reload()
}

// reload is Reload with mu held.
func (s *Source) reload() error {
	s.looked = time.Now()
	raw, err := s.files.read()
	if err == nil && s.held.Load() != nil && slices.EqualFunc(raw[:], s.raw[:], bytes.Equal) {
		s.report(nil)
		return nil
	}
	var h *held
	if err == nil {
		if h, err = s.files.parse(raw); err == nil {
			err = s.fit(h)
		}
		if err != nil && h != nil {
			err = fmt.Errorf("%s: %w", s.files.Certificate, err)
		}
	}
	if first := s.held.Load() == nil; !first {
		s.report(err)
	}
	if err != nil {
		return err
	}
	if s.held.Swap(h) != nil {
		s.log.Info("certificates were read anew", "certificate", s.files.Certificate, "ca", s.files.CA, "expires", h.expires())
	}
	s.raw = raw
	return nil
}

// report logs a failure once, and its end.
func (s *Source) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == s.complain:
	case err != nil:
		s.log.Warn("certificates can't be read anew: those read before stay in use", "error", err)
	default:
		s.log.Info("certificates can be read again")
	}
	s.complain = text
}

// Watch looks at the files every few seconds until ctx ends, so that what is wrong with
// new ones is told before somebody connects. Without it they are looked at when they
// are used.
func (s *Source) Watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.Reload() //nolint:errcheck,gosec // reported
		case <-ctx.Done():
			return
		}
	}
}

// current is what is in use, after a look at the files if the last was long ago.
func (s *Source) current() *held {
	if s.mu.TryLock() { // who looks already looks for all
		if time.Since(s.looked) > lookEvery {
			s.reload() //nolint:errcheck,gosec // reported
		}
		s.mu.Unlock()
	}
	return s.held.Load()
}

// Expiry is until when a certificate is good.
type Expiry struct {
	Use     string // "certificate" or "ca"
	Subject string
	Until   time.Time
}

// Expiry tells it of all certificates in use.
func (s *Source) Expiry() []Expiry {
	h := s.held.Load()
	var all []Expiry
	for _, c := range h.pair {
		all = append(all, Expiry{"certificate", c.Leaf.Subject.String(), c.Leaf.NotAfter})
	}
	for _, c := range h.authorities {
		all = append(all, Expiry{"ca", c.Subject.String(), c.NotAfter})
	}
	return all
}

// unfit is the error of a certificate and a key that are no pair.
type unfit struct{ error }

func (u unfit) Unwrap() error { return u.error }

// expires is when the holder's own certificate ends.
func (h *held) expires() string {
	if len(h.pair) == 0 {
		return ""
	}
	return h.pair[0].Leaf.NotAfter.UTC().Format(time.RFC3339)
}

func (f Files) read() (raw [3][]byte, err error) {
	var problems []error
	for i, path := range []string{f.CA, f.Certificate, f.Key} {
		if path == "" {
			continue
		}
		content, err := readFile(path)
		problems = append(problems, err)
		raw[i] = content
	}
	return raw, errors.Join(problems...)
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // an operator named it
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return content, err
}

// parse understands the files. Its errors name the files and nothing that is in them.
func (f Files) parse(raw [3][]byte) (*held, error) {
	h := &held{}
	if f.CA != "" {
		var err error
		if h.authorities, err = parseAuthorities(raw[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", f.CA, err)
		}
		h.pool = x509.NewCertPool()
		for _, c := range h.authorities {
			h.pool.AddCert(c)
		}
	}
	if f.Certificate != "" {
		pair, err := tls.X509KeyPair(raw[1], raw[2])
		if err != nil {
			return nil, unfit{fmt.Errorf("certificate %s and key %s: %w", f.Certificate, f.Key, err)}
		}
		if now := time.Now(); now.After(pair.Leaf.NotAfter) {
			return nil, fmt.Errorf("%s: expired on %s", f.Certificate, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
		} else if now.Before(pair.Leaf.NotBefore) {
			return nil, fmt.Errorf("%s: not valid before %s, and this machine's clock says %s", f.Certificate,
				pair.Leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
		h.pair = []tls.Certificate{pair}
	}
	return h, nil
}

// parseAuthorities reads a bundle, in which no block may be damaged: an authority that
// is silently left out is missed when it is needed.
func parseAuthorities(bundle []byte) (all []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a %s does not belong among authorities", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 || len(bytes.TrimSpace(bundle)) > 0 {
		return nil, errors.New("want PEM certificates, and nothing after them")
	}
	return all, nil
}
