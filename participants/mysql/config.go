package mysql

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/decree-tx/decree/participants"
	"github.com/decree-tx/decree/participants/marker"
	"github.com/decree-tx/decree/participants/statements"
)

// Config is the driver's configuration. The package's documentation has an
// example.
type Config struct {
	// DSN refers to the data source name, which holds the password.
	DSN participants.Reference `json:"dsn"`
	statements.Set
	// Schema holds the marker tables; empty is the DSN's database.
	Schema string `json:"schema,omitempty"`
	// MaxConnections bounds the branches that are under way or prepared at the same
	// time: the server ties a branch to its connection until it ends. 0 is
	// defaultConnections.
	MaxConnections int `json:"max_connections,omitempty"`
	// LockTimeout is how long a statement waits for a lock. Two transactions can
	// wait for each other across two databases, where nobody sees it, so it is to be
	// shorter than a transaction's time. The server counts whole seconds. 0 is
	// defaultLockTimeout.
	LockTimeout Duration `json:"lock_timeout,omitempty"`
	// ConnectTimeout bounds a connection's making. 0 is defaultConnectTimeout.
	ConnectTimeout Duration `json:"connect_timeout,omitempty"`
}

const (
	// defaultConnections leaves room for people and other programs below the
	// server's own default of 151.
	defaultConnections = 100
	// maxConnections is what one server can be asked to carry: each connection is a
	// thread of it.
	maxConnections        = 5000
	defaultLockTimeout    = 2 * time.Second
	maxLockTimeout        = 10 * time.Minute
	defaultConnectTimeout = 5 * time.Second
	maxConnectTimeout     = time.Minute
)

// Duration is a time.Duration that reads and writes itself as in "2s".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var problems []error
	if err := c.DSN.Validate(); err != nil {
		problems = append(problems, fmt.Errorf(`"dsn": %w`, err))
	}
	if err := c.Set.Validate(); err != nil {
		problems = append(problems, err)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Catalogue)) {
		if err := checkEntry(c.Catalogue[name]); err != nil {
			problems = append(problems, fmt.Errorf("catalogue %q: %w", name, err))
		}
	}
	if _, err := marker.NewMySQL(c.Schema); err != nil {
		problems = append(problems, fmt.Errorf(`"schema": %w`, err))
	}
	if c.MaxConnections < 0 || c.MaxConnections > maxConnections {
		problems = append(problems, fmt.Errorf(`"max_connections" is %d, want 1 to %d`, c.MaxConnections, maxConnections))
	}
	if d := time.Duration(c.LockTimeout); d < 0 || d > maxLockTimeout || d%time.Second != 0 {
		problems = append(problems, fmt.Errorf(`"lock_timeout" is %s, want whole seconds up to %s`, d, maxLockTimeout))
	}
	if d := time.Duration(c.ConnectTimeout); d < 0 || d > maxConnectTimeout {
		problems = append(problems, fmt.Errorf(`"connect_timeout" is %s, want up to %s`, d, maxConnectTimeout))
	}
	return errors.Join(problems...)
}

// checkEntry looks at a catalogue's statement as at a request's.
func checkEntry(e statements.Entry) error {
	c, err := compile(e.SQL)
	if err == nil && len(c.between)-1 != len(e.Params) {
		err = fmt.Errorf("the statement has %d placeholders for %d params", len(c.between)-1, len(e.Params))
	}
	return err
}

func (c Config) withDefaults() Config {
	if c.MaxConnections == 0 {
		c.MaxConnections = defaultConnections
	}
	if c.LockTimeout == 0 {
		c.LockTimeout = Duration(defaultLockTimeout)
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = Duration(defaultConnectTimeout)
	}
	return c
}

func parseConfig(config []byte) (Config, error) {
	var c Config
	d := json.NewDecoder(bytes.NewReader(config))
	d.DisallowUnknownFields()
	err := d.Decode(&c)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("more than one JSON value")
		}
	}
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		return Config{}, fmt.Errorf("mysql configuration: %w", err)
	}
	return c.withDefaults(), nil
}
