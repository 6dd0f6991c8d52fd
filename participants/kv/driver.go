package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
)

// Config is the driver's configuration.
type Config struct {
	// Path names the file. Its directory must exist. A relative path is relative
	// to where the process was started.
	Path string `json:"path"`
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	if c.Path == "" {
		return errors.New(`"path" is missing or empty`)
	}
	return nil
}

// maxPath is that of Linux.
const maxPath = 4096

func parseConfig(config []byte) (Config, error) {
	var c Config
	var problems []error
	err := eachField(config, func(name string, value json.RawMessage) (err error) {
		if name != "path" {
			problems = append(problems, fmt.Errorf("unknown field %.64q", name))
		} else if c.Path, err = parseString(value, maxPath); err != nil {
			problems = append(problems, fmt.Errorf(`"path": %w`, err))
			c.Path = "?" // there is one
		}
		return nil
	})
	if err == nil {
		err = errors.Join(append(problems, c.Validate())...)
	}
	if err != nil {
		return Config{}, fmt.Errorf(`kv configuration, want {"path": "FILE"}: %w`, err)
	}
	return c, nil
}

// Driver opens stores as participants. Several participants of one process that
// name the same file share it, as the nodes of a cluster in one process do when
// leadership moves. The zero Driver is ready for use; it must not be copied.
type Driver struct {
	mu   sync.Mutex
	open map[string]*shared // by absolute path
}

// shared is an open store and the participants that use it.
type shared struct {
	*Store
	users int // guarded by Driver.mu
}

// Check implements participants.Driver.
func (d *Driver) Check(config []byte) error {
	_, err := parseConfig(config)
	return err
}

// Open implements participants.Driver. It does not wait for the file's lock for
// longer than Open does.
func (d *Driver) Open(ctx context.Context, r participants.Registration, log hclog.Logger) (participants.Participant, error) {
	c, err := parseConfig(r.Config)
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.open[path]
	if s == nil {
		store, err := Open(ctx, path, log)
		if err != nil {
			return nil, err
		}
		s = &shared{Store: store}
		if d.open == nil {
			d.open = map[string]*shared{}
		}
		d.open[path] = s
	}
	s.users++
	return &user{Store: s.Store, close: sync.OnceValue(func() error { return d.release(path, s) })}, nil
}

func (d *Driver) release(path string, s *shared) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.users--; s.users > 0 {
		return nil
	}
	delete(d.open, path)
	return s.Store.Close()
}

// user is one participant's use of a store.
type user struct {
	*Store
	close func() error
}

// Close gives the store back; the last user's ends it.
func (u *user) Close() error { return u.close() }
