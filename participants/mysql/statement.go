package mysql

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A branch's statements travel together in one text, for which the server is told
// to expect several statements. So this file makes sure that each of them is one:
// it holds no semicolon and no comment, and its quotes are closed.

// compiled is a statement that was looked at.
type compiled struct {
	between []string // the text before, between and after the placeholders
	reads   bool     // it begins like a query, and takes no locks
	rows    bool     // it answers with rows, so that they must be counted
	calls   bool     // it answers with any number of results
}

// verbs are what a statement may begin with. Everything else ends the branch's
// transaction, changes its session, or acts outside of both.
var verbs = map[string]compiled{
	"SELECT":  {reads: true, rows: true},
	"VALUES":  {reads: true, rows: true},
	"WITH":    {reads: true, rows: true},
	"INSERT":  {},
	"UPDATE":  {},
	"DELETE":  {},
	"REPLACE": {},
	"CALL":    {calls: true},
}

// refusedWords are functions that would release, or take, the session's lock by
// which the branch's owner is found.
var refusedWords = map[string]bool{"GET_LOCK": true, "RELEASE_LOCK": true, "RELEASE_ALL_LOCKS": true}

// compile looks at a statement. Its error is a reason to vote no.
func compile(sql string) (compiled, error) {
	sql = strings.TrimSuffix(strings.TrimSpace(sql), ";")
	l := lexer{sql: sql}
	if err := l.scan(); err != nil {
		return compiled{}, err
	}
	if len(l.words) == 0 {
		return compiled{}, errors.New("the statement is empty")
	}
	c, ok := verbs[l.words[0]]
	if !ok {
		return compiled{}, fmt.Errorf("a branch may not %.32s: it may SELECT, INSERT, UPDATE, DELETE, REPLACE and CALL", l.words[0])
	}
	for _, name := range append(l.quotedNames, l.words...) {
		if refusedWords[name] {
			return compiled{}, fmt.Errorf("a branch may not use %s: the driver finds its sessions by such locks", name)
		}
	}
	queries := c.reads
	for i, word := range l.words {
		switch {
		case word == "RETURNING":
			c.rows = true
		case queries && word == "INTO": // also after FOR UPDATE
			return compiled{}, errors.New("a branch may not SELECT INTO: nothing of it would be undone")
		case c.reads && (word == "UPDATE" || word == "SHARE") && (l.words[i-1] == "FOR" || l.words[i-1] == "IN"):
			c.reads = false // the lock is to be held to the decision
		}
	}
	c.between = append(l.between, sql[l.from:])
	return c, nil
}

// lexer finds a statement's placeholders and unquoted words.
type lexer struct {
	sql     string
	at      int
	from    int // where the text after the last placeholder begins
	between []string
	words   []string // in upper case

	quotedNames []string // in upper case: a function may be called by one
}

func (l *lexer) scan() error {
	for l.at < len(l.sql) {
		c := l.sql[l.at]
		next := byte(0)
		if l.at+1 < len(l.sql) {
			next = l.sql[l.at+1]
		}
		switch {
		case c == '\'' || c == '"' || c == '`':
			if err := l.quoted(c); err != nil {
				return err
			}
			continue
		case c == ';':
			return errors.New("one statement at a time: a semicolon that is text belongs in an argument")
		case c == '#', c == '-' && next == '-', c == '/' && next == '*':
			return errors.New("comments are not taken; write a space between two minus signs")
		case c < ' ' && c != '\t' && c != '\n' && c != '\r':
			return errors.New("the statement holds a control character")
		case c == '?':
			l.between = append(l.between, l.sql[l.from:l.at])
			l.from = l.at + 1
		case isLetter(c):
			l.word()
			continue
		}
		l.at++
	}
	return nil
}

// quoted passes a string or a quoted name. A quote that stands twice is two of
// them in a row, which comes to the same.
func (l *lexer) quoted(quote byte) error {
	start := l.at + 1
	for l.at++; l.at < len(l.sql); l.at++ {
		switch c := l.sql[l.at]; {
		case c == quote:
			if quote == '`' {
				l.quotedNames = append(l.quotedNames, strings.ToUpper(l.sql[start:l.at]))
			}
			l.at++
			return nil
		case c == ';':
			return errors.New("one statement at a time: a semicolon that is text belongs in an argument")
		case c == '\\' && quote != '`':
			l.at++ // the sessions' sql_mode has backslashes escape
		}
	}
	return errors.New("a quote is not closed")
}

func (l *lexer) word() {
	start := l.at
	for l.at < len(l.sql) && (isLetter(l.sql[l.at]) || l.sql[l.at] >= '0' && l.sql[l.at] <= '9' || l.sql[l.at] == '$') {
		l.at++
	}
	l.words = append(l.words, strings.ToUpper(l.sql[start:l.at]))
}

func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

// text puts the arguments in. Strings stay placeholders and are returned beside
// the text, for the library to quote. A number becomes a literal with exactly its
// digits: as a string, the server would calculate with it in floating point.
func (c compiled) text(args []any) (string, []any, error) {
	if len(args) != len(c.between)-1 {
		return "", nil, fmt.Errorf("the statement has %d placeholders for %d args", len(c.between)-1, len(args))
	}
	var sql strings.Builder
	var rest []any
	for i, arg := range args {
		sql.WriteString(c.between[i])
		switch arg := arg.(type) {
		case nil:
			sql.WriteString("NULL")
		case bool:
			sql.WriteString(strconv.Itoa(map[bool]int{true: 1}[arg]))
		case json.Number:
			literal, err := number(arg)
			if err != nil {
				return "", nil, err
			}
			sql.WriteString(literal)
		case string:
			sql.WriteByte('?')
			rest = append(rest, arg)
		default:
			return "", nil, fmt.Errorf("an argument of type %T", arg)
		}
	}
	sql.WriteString(c.between[len(args)])
	return sql.String(), rest, nil
}

// maxNumber bounds a number's text: MariaDB's DECIMAL has 65 digits.
const maxNumber = 80

// number is a JSON number as a literal of SQL, which has the same form for it.
func number(n json.Number) (string, error) {
	if len(n) > maxNumber || !json.Valid([]byte(n)) || strings.Trim(string(n), "0123456789+-.eE") != "" {
		return "", fmt.Errorf("the number %.32s is none of at most %d characters", string(n), maxNumber)
	}
	// A space keeps a minus sign from joining another one before it to a comment.
	return " " + string(n) + " ", nil
}
