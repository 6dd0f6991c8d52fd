package postgres

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

const (
	// defaultConnections lets a server of a few cores share one flush of its log
	// among many branches; more of them only wait for each other.
	defaultConnections = 32
	// minConnections keeps one for prepares and one for deliveries, which free the
	// locks that prepares wait for.
	minConnections = 2
	// mostConnections is beyond what one server takes well from one client.
	mostConnections = 1000

	// defaultLockTimeout is well within the ten seconds that a coordinator gives to
	// a prepare: two transactions that wait for each other in two databases, where
	// neither database sees it, end by this and nothing else.
	defaultLockTimeout = 2 * time.Second
	mostLockTimeout    = time.Minute
	// defaultStatementTimeout ends what a node that is gone has left running.
	defaultStatementTimeout = 30 * time.Second
	mostStatementTimeout    = time.Hour
)

// Config is the JSON object of a registration with this driver:
//
//	{
//	  "dsn": "env:ORDERS_DSN",
//	  "catalogue": {
//	    "debit": {
//	      "sql": "UPDATE account SET balance = balance - $2 WHERE id = $1 AND balance >= $2",
//	      "params": ["account", "amount"],
//	      "expect_rows": 1
//	    }
//	  }
//	}
type Config struct {
	// DSN refers to the connection string, in any form that libpq takes. Each node
	// reads it again for every connection that it makes, so that a password can be
	// changed under traffic. All nodes must use the same role: PostgreSQL lets only
	// the role that prepared a transaction, or a superuser, finish it.
	DSN participants.Reference `json:"dsn"`
	// Set is what requests may ask for: a catalogue of named statements and, where
	// "raw_sql" is true, any SQL.
	statements.Set
	// Schema is where the marker tables are: "public" when absent.
	Schema string `json:"schema,omitempty"`
	// Isolation is the level of branches' transactions: "read committed",
	// "repeatable read" or "serializable"; what the database sets for the role when
	// absent.
	Isolation string `json:"isolation,omitempty"`
	// MaxConnections of one node to the database; 32 when absent. An eighth of them
	// is for deliveries alone. Below the number of callers at once, branches wait for
	// connections, and share fewer flushes of the server's log.
	MaxConnections int `json:"max_connections,omitempty"`
	// LockTimeout bounds each wait for a lock, after which the branch votes no; 2s
	// when absent, at most 1m.
	LockTimeout Duration `json:"lock_timeout,omitempty"`
	// StatementTimeout bounds each statement; 30s when absent, at most 1h.
	StatementTimeout Duration `json:"statement_timeout,omitempty"`
}

// Duration is a time.Duration that is written as in "2s".
type Duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf(`want a duration such as "2s": %w`, err)
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// parseConfig reads a configuration strictly: unknown fields and anything after
// the object are mistakes. Its error names every problem. What is absent has its
// default afterwards.
func parseConfig(raw []byte) (Config, error) {
	c := Config{
		Schema:           marker.PostgresSchema,
		MaxConnections:   defaultConnections,
		LockTimeout:      Duration(defaultLockTimeout),
		StatementTimeout: Duration(defaultStatementTimeout),
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("empty")
		}
		return Config{}, fmt.Errorf(`config: %w; want an object such as {"dsn": "env:ORDERS_DSN", "catalogue": {...}}`, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("config: something follows the JSON object")
	}
	return c, c.Validate()
}

// Validate reports everything that is wrong with c.
func (c Config) Validate() error {
	var problems []error
	note := func(what string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", what, err))
		}
	}
	note("dsn", c.DSN.Validate())
	note("statements", c.Set.Validate())
	for _, name := range slices.Sorted(maps.Keys(c.Catalogue)) {
		note(fmt.Sprintf("catalogue %q", name), allowed(c.Catalogue[name].SQL))
	}
	if _, err := marker.NewPostgres(c.Schema); err != nil {
		problems = append(problems, err)
	}
	switch c.Isolation {
	case "", "read committed", "repeatable read", "serializable":
	default:
		problems = append(problems, fmt.Errorf(`isolation: %.32q, want "read committed", "repeatable read" or "serializable"`, c.Isolation))
	}
	if c.MaxConnections < minConnections || c.MaxConnections > mostConnections {
		problems = append(problems, fmt.Errorf("max_connections: %d, want %d to %d", c.MaxConnections, minConnections, mostConnections))
	}
	note("lock_timeout", within(c.LockTimeout, mostLockTimeout))
	note("statement_timeout", within(c.StatementTimeout, mostStatementTimeout))
	return errors.Join(problems...)
}

// within holds a timeout against its bounds. The server counts milliseconds, and
// takes 0 for no bound at all.
func within(d Duration, most time.Duration) error {
	if time.Duration(d) < time.Millisecond || time.Duration(d) > most {
		return fmt.Errorf("%s, want 1ms to %s", time.Duration(d), most)
	}
	return nil
}
