// Package statements is what a client may ask of an SQL database: the payload of
// the SQL drivers, and the catalogue of statements that an operator registers with
// a participant.
//
// It owns the form of both and matches the one against the other. It refuses to
// know any dialect: the SQL passes through as it is, and arguments stay beside it.
package statements

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Bounds of one payload and of one catalogue (rule R14).
const (
	// MaxStatements keeps one branch from holding a connection for long.
	MaxStatements = 256
	// MaxSQL is in bytes, of one statement. Longer ones are data in disguise, and
	// belong in a parameter.
	MaxSQL = 64 << 10
	// MaxArgs of one statement: PostgreSQL and MariaDB both end at 65,535.
	MaxArgs = 4096
)

// Set is what a participant takes. The zero Set takes nothing.
type Set struct {
	// Catalogue holds the statements that requests may name. An empty one, which is
	// not a missing one, is for databases all of whose branches are run by
	// applications themselves.
	Catalogue map[string]Entry `json:"catalogue,omitempty"`
	// RawSQL lets requests carry SQL of their own, which can then do whatever the
	// participant's role may.
	RawSQL bool `json:"raw_sql,omitempty"`
}

// Entry is one statement of a catalogue.
type Entry struct {
	SQL string `json:"sql"`
	// Params names the arguments, in the order of the statement's placeholders. A
	// name may stand more than once where the dialect's placeholders have no
	// numbers.
	Params []string `json:"params,omitempty"`
	// ExpectRows is the number of rows that the statement must touch. Nil expects
	// nothing.
	ExpectRows *int64 `json:"expect_rows,omitempty"`
}

// Statement is one statement to run.
type Statement struct {
	Name string // in the catalogue; empty where the request carried the SQL
	SQL  string
	// Args are nil, bool, string or json.Number, which keeps every digit; a JSON
	// array or object is its text, for columns that hold JSON.
	Args       []any
	ExpectRows *int64
}

// String names the statement for people, without its arguments.
func (s Statement) String() string {
	if s.Name != "" {
		return fmt.Sprintf("statement %q", s.Name)
	}
	return fmt.Sprintf("statement %.80q", s.SQL)
}

// Unexpected tells what is wrong with the number of rows that the statement
// touched; empty means nothing.
func (s Statement) Unexpected(rows int64) string {
	if s.ExpectRows == nil || *s.ExpectRows == rows {
		return ""
	}
	return fmt.Sprintf("%s touched %d rows, expected %d", s, rows, *s.ExpectRows)
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,127}$`)

// Validate reports everything that is wrong with the set.
func (s Set) Validate() error {
	var problems []error
	if s.Catalogue == nil && !s.RawSQL {
		problems = append(problems, errors.New(`"catalogue" is missing, and "raw_sql" is off: nothing could be asked;`+
			` say "catalogue": {} where applications run all branches themselves`))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Catalogue)) {
		if !identifier.MatchString(name) {
			problems = append(problems, fmt.Errorf("catalogue: %.64q is no name", name))
		}
		for _, problem := range s.Catalogue[name].problems() {
			problems = append(problems, fmt.Errorf("catalogue %q: %w", name, problem))
		}
	}
	return errors.Join(problems...)
}

func (e Entry) problems() []error {
	var problems []error
	if err := checkSQL(e.SQL); err != nil {
		problems = append(problems, err)
	}
	if err := checkRows(e.ExpectRows); err != nil {
		problems = append(problems, err)
	}
	if len(e.Params) > MaxArgs {
		problems = append(problems, fmt.Errorf("%d params, at most %d", len(e.Params), MaxArgs))
	}
	for _, p := range e.Params {
		if !identifier.MatchString(p) {
			problems = append(problems, fmt.Errorf("param %.64q is no name", p))
		}
	}
	return problems
}

func checkSQL(sql string) error {
	switch {
	case strings.TrimSpace(sql) == "":
		return errors.New(`"sql" is missing or empty`)
	case len(sql) > MaxSQL:
		return fmt.Errorf(`"sql" has %d bytes, at most %d`, len(sql), MaxSQL)
	case strings.ContainsRune(sql, 0):
		return errors.New(`"sql" holds a zero byte`)
	}
	return nil
}

func checkRows(expect *int64) error {
	if expect != nil && *expect < 0 {
		return fmt.Errorf(`"expect_rows" is %d, want 0 or more`, *expect)
	}
	return nil
}

// item is one statement of a payload.
type item struct {
	Name       string          `json:"name"`
	SQL        string          `json:"sql"`
	Args       json.RawMessage `json:"args"`
	ExpectRows *int64          `json:"expect_rows"`
}

// Parse reads a payload: {"statements": [...]}, or one statement alone. Its error
// is a reason to vote no: the payload will not get better.
func (s Set) Parse(payload []byte) ([]Statement, error) {
	var p struct {
		Statements []item `json:"statements"`
		item
	}
	if err := decode(payload, &p); err != nil {
		return nil, fmt.Errorf(`payload, want {"statements": [...]}: %w`, err)
	}
	items := p.Statements
	switch alone := p.Name != "" || p.SQL != "" || p.Args != nil || p.ExpectRows != nil; {
	case alone && items != nil:
		return nil, errors.New(`payload: both "statements" and a statement beside them`)
	case alone:
		items = []item{p.item}
	case len(items) == 0:
		return nil, errors.New("payload: no statement")
	case len(items) > MaxStatements:
		return nil, fmt.Errorf("payload: %d statements, at most %d", len(items), MaxStatements)
	}
	parsed := make([]Statement, len(items))
	for i, it := range items {
		var err error
		if parsed[i], err = s.resolve(it); err != nil {
			return nil, fmt.Errorf("statement %d: %w", i+1, err)
		}
	}
	return parsed, nil
}

// resolve makes a statement of what the payload says and the catalogue knows.
func (s Set) resolve(it item) (Statement, error) {
	switch {
	case it.Name != "" && it.SQL != "":
		return Statement{}, errors.New(`both "name" and "sql"`)
	case it.Name != "":
		return s.named(it)
	case it.SQL == "":
		return Statement{}, errors.New(`neither "name" nor "sql"`)
	case !s.RawSQL:
		return Statement{}, errors.New(`this participant takes statements of its catalogue only ("name"), no SQL`)
	}
	if err := errors.Join(checkSQL(it.SQL), checkRows(it.ExpectRows)); err != nil {
		return Statement{}, err
	}
	args, err := positional(it.Args)
	return Statement{SQL: it.SQL, Args: args, ExpectRows: it.ExpectRows}, err
}

func (s Set) named(it item) (Statement, error) {
	entry, ok := s.Catalogue[it.Name]
	if !ok {
		return Statement{}, fmt.Errorf("the catalogue has no %.64q", it.Name)
	}
	if it.ExpectRows != nil {
		return Statement{}, errors.New(`"expect_rows" of a named statement is the catalogue's to say`)
	}
	args, err := entry.arguments(it.Args)
	if err != nil {
		return Statement{}, fmt.Errorf("%q: %w", it.Name, err)
	}
	return Statement{Name: it.Name, SQL: entry.SQL, Args: args, ExpectRows: entry.ExpectRows}, nil
}

// arguments puts a request's arguments, by name or in order, into the order of the
// placeholders.
func (e Entry) arguments(raw json.RawMessage) ([]any, error) {
	if len(raw) == 0 || raw[0] != '{' {
		args, err := positional(raw)
		if err == nil && len(args) != len(e.Params) {
			err = fmt.Errorf("%d args, want %d: %s", len(args), len(e.Params), strings.Join(e.Params, ", "))
		}
		return args, err
	}
	var byName map[string]json.RawMessage
	if err := json.Unmarshal(raw, &byName); err != nil {
		return nil, fmt.Errorf(`"args": %w`, err)
	}
	args := make([]any, len(e.Params))
	for i, name := range e.Params {
		value, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("arg %q is missing", name)
		}
		var err error
		if args[i], err = argument(value); err != nil {
			return nil, fmt.Errorf("arg %q: %w", name, err)
		}
	}
	for name := range byName {
		if !slices.Contains(e.Params, name) {
			return nil, fmt.Errorf("unknown arg %.64q, want %s", name, strings.Join(e.Params, ", "))
		}
	}
	return args, nil
}

func positional(raw json.RawMessage) ([]any, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var values []json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return nil, fmt.Errorf(`"args": %w`, err)
	}
	if len(values) > MaxArgs {
		return nil, fmt.Errorf("%d args, at most %d", len(values), MaxArgs)
	}
	args := make([]any, len(values))
	for i, value := range values {
		var err error
		if args[i], err = argument(value); err != nil {
			return nil, fmt.Errorf("arg %d: %w", i+1, err)
		}
	}
	return args, nil
}

// argument reads one value, which is known to be JSON. A number is taken as it is
// written.
func argument(raw json.RawMessage) (any, error) {
	switch raw[0] {
	case '{', '[':
		var text bytes.Buffer
		err := json.Compact(&text, raw)
		return text.String(), err
	case '"':
		var text string
		err := json.Unmarshal(raw, &text)
		return text, err
	case 'n':
		return nil, nil
	case 't', 'f':
		return raw[0] == 't', nil
	default:
		return json.Number(raw), nil
	}
}

// decode reads one JSON value, all of it.
func decode(content []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}
