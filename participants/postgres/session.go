package postgres

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// session is one connection to the server, used by one goroutine at a time.
type session struct {
	conn *pgconn.PgConn // set once

	// prepared holds the names under which the server has parsed statements, by
	// their SQL. It is bounded by the catalogue's size.
	prepared map[string]string
	names    int // given so far; a name is never given twice
	// How branches begin and end, set by greet.
	begin, beginReading, endReading string
	// touched says that SQL which a request carried has run here.
	touched bool
	// unreplicated is set when the server says that it has made something durable
	// that its synchronous standbys have not confirmed.
	unreplicated bool
}

// sessionKey is where a connection keeps its session.
const sessionKey = "decree"

func newSession(conn *pgconn.PgConn) *session {
	s := &session{conn: conn, prepared: map[string]string{}}
	conn.CustomData()[sessionKey] = s
	return s
}

func sessionOf(conn *pgconn.PgConn) *session {
	s, _ := conn.CustomData()[sessionKey].(*session)
	return s
}

// notice hears what the server says beside its answers.
func notice(conn *pgconn.PgConn, n *pgconn.Notice) {
	if s := sessionOf(conn); s != nil && n.Routine == "SyncRepWaitForLSN" {
		s.unreplicated = true
	}
}

// command runs one statement by the simple protocol, which those that end
// prepared transactions need, and returns its tag.
func (s *session) command(ctx context.Context, sql string) (string, error) {
	results, err := s.conn.Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return "", err
	}
	return results[0].CommandTag.String(), nil
}

// query runs one statement of our own by itself.
func (s *session) query(ctx context.Context, sql string, args ...any) (answer, error) {
	t := s.trip(ctx)
	t.ask(sql, args...)
	answers, err := t.make()
	if err == nil {
		err = answers[0].err
	}
	if err != nil {
		return answer{}, err
	}
	return answers[0], nil
}

// trip is what is sent to the server in one go. Its parts are transactions of
// their own unless they say BEGIN: an error skips the rest of its part.
type trip struct {
	s        *session
	ctx      context.Context
	pipeline *pgconn.Pipeline
	steps    []step
}

type stepKind uint8

const (
	askStep     stepKind = iota // keeps its rows
	runStep                     // drops them
	parseStep                   // of the ask or run that follows
	endPartStep                 // what follows is a part of its own
)

type step struct {
	kind stepKind
	sql  string
	name string // of a parse
}

// answer is what one statement of a trip came to.
type answer struct {
	rows []row
	tag  pgconn.CommandTag
	err  error // a *pgconn.PgError, or errSkipped
}

// row has the text of each value, nil for NULL.
type row [][]byte

// errSkipped is the error of a statement that came after one that failed.
var errSkipped = errors.New("a statement before it failed")

func (s *session) trip(ctx context.Context) *trip {
	return &trip{s: s, ctx: ctx, pipeline: s.conn.StartPipeline(ctx)}
}

// ask adds a statement whose rows matter. The server parses it once for each
// connection.
func (t *trip) ask(sql string, args ...any) { t.cached(askStep, sql, args) }

// run adds a statement whose rows do not.
func (t *trip) run(sql string, args ...any) { t.cached(runStep, sql, args) }

func (t *trip) cached(kind stepKind, sql string, args []any) {
	name, ok := t.s.prepared[sql]
	if !ok {
		// Twice in one trip, it is parsed twice: the first may fail.
		t.s.names++
		name = "decree_" + strconv.Itoa(t.s.names)
		t.pipeline.SendPrepare(name, sql, nil)
		t.steps = append(t.steps, step{kind: parseStep, sql: sql, name: name})
	}
	t.pipeline.SendQueryPrepared(name, texts(args), nil, nil)
	t.steps = append(t.steps, step{kind: kind})
}

// once adds a statement that will not come again, and whose parsing is not kept.
func (t *trip) once(sql string, args ...any) {
	t.pipeline.SendQueryParams(sql, texts(args), nil, nil, nil)
	t.steps = append(t.steps, step{kind: runStep})
}

// endPart ends a transaction.
func (t *trip) endPart() {
	t.pipeline.SendPipelineSync()
	t.steps = append(t.steps, step{kind: endPartStep})
}

// make sends what was added and waits for all answers. The error is that of the
// connection, which is closed then.
func (t *trip) make() ([]answer, error) {
	t.endPart()
	err := t.pipeline.Flush()
	var answers []answer
	if err == nil {
		answers, err = t.answers()
	}
	closed := t.pipeline.Close()
	if confused(err) {
		t.s.conn.Close(t.ctx) //nolint:errcheck // it is of no use any more
		return nil, err
	}
	if err == nil {
		var refused *pgconn.PgError // was met in the answers
		if !errors.As(closed, &refused) {
			err = closed
		}
	}
	return answers, err
}

func (t *trip) answers() ([]answer, error) {
	var (
		answers []answer
		failure error // of the part that is being read
		unheard bool  // it is of a parse, and not yet in the answers
	)
	for _, st := range t.steps {
		switch {
		case st.kind == endPartStep:
			if _, err := t.pipeline.GetResults(); err != nil {
				return nil, err
			}
			failure, unheard = nil, false
		case failure != nil && st.kind == parseStep:
		case failure != nil && unheard:
			answers, unheard = append(answers, answer{err: failure}), false
		case failure != nil:
			answers = append(answers, answer{err: errSkipped})
		default:
			a, err := t.answer(st)
			if err != nil {
				return nil, err
			}
			if st.kind == parseStep {
				failure, unheard = a.err, a.err != nil
				continue
			}
			answers, failure = append(answers, a), a.err
		}
	}
	return answers, nil
}

// answer reads what one step came to. An error that is not the server's word about
// the statement, or its last word, is the connection's.
func (t *trip) answer(st step) (answer, error) {
	result, err := t.pipeline.GetResults()
	var a answer
	if r, ok := result.(*pgconn.ResultReader); err == nil && ok {
		for st.kind == askStep && r.NextRow() {
			a.rows = append(a.rows, copyRow(r.Values()))
		}
		a.tag, err = r.Close()
	}
	var refused *pgconn.PgError
	switch {
	case err == nil:
		if st.kind == parseStep {
			t.s.prepared[st.sql] = st.name
		}
	case errors.As(err, &refused) && !fatal(refused) && !confused(refused):
		a.err = refused
	default:
		return answer{}, err
	}
	return a, nil
}

// copyRow takes a row out of the connection's buffer.
func copyRow(values [][]byte) row {
	r := make(row, len(values))
	for i, v := range values {
		r[i] = slices.Clone(v)
	}
	return r
}

// texts are arguments as the server reads them: what an argument is, the
// statement says.
func texts(args []any) [][]byte {
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = text(a)
	}
	return values
}

func text(arg any) []byte {
	switch v := arg.(type) {
	case nil:
		return nil
	case string:
		return []byte(v)
	case json.Number:
		return []byte(v)
	case []byte:
		return append([]byte(`\x`), hex.EncodeToString(v)...)
	case bool:
		return strconv.AppendBool(nil, v)
	case int:
		return strconv.AppendInt(nil, int64(v), 10)
	case int64:
		return strconv.AppendInt(nil, v, 10)
	case *int64:
		if v == nil {
			return nil
		}
		return strconv.AppendInt(nil, *v, 10)
	default:
		return fmt.Append(nil, v)
	}
}

func (r row) text(i int) string { return string(r[i]) }

func (r row) truth(i int) bool { return string(r[i]) == "t" }

func (r row) number(i int) (int64, error) {
	if r[i] == nil {
		return 0, nil
	}
	return strconv.ParseInt(string(r[i]), 10, 64)
}
