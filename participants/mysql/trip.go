package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
)

// trip gathers the text of statements that need no answer before the next ones.
type trip struct {
	session *session
	sql     strings.Builder
	args    []any
	checks  []func(rows int64) error // of each statement; nil for none
}

// add appends a statement.
func (t *trip) add(check func(rows int64) error, sql string, args ...any) {
	if t.sql.Len() > 0 {
		t.sql.WriteString(";\n")
	}
	t.sql.WriteString(sql)
	t.args = append(t.args, args...)
	t.checks = append(t.checks, check)
}

// statement appends one of the branch's statements, or runs it at once where its
// answer is more than one number.
func (t *trip) statement(ctx context.Context, st statement) (refusal, err error) {
	if !st.calls && !(st.rows && st.ExpectRows != nil) {
		t.add(st.expect, st.text, st.args...)
		return nil, nil
	}
	if refusal, err := t.flush(ctx); refusal != nil || err != nil {
		return refusal, err
	}
	rows, err := t.session.count(ctx, st.text, st.args...)
	if refusal, err := sort(err); refusal != nil || err != nil {
		return refusal, err
	}
	return st.expect(rows), nil
}

// flush runs what was added and checks what each statement has touched.
func (t *trip) flush(ctx context.Context) (refusal, err error) {
	if len(t.checks) == 0 {
		return nil, nil
	}
	rows, err := t.session.exec(ctx, t.sql.String(), t.args...)
	if refusal, err := sort(err); refusal != nil || err != nil {
		return refusal, err
	}
	if len(rows) != len(t.checks) {
		return fmt.Errorf("%d statements gave %d results", len(t.checks), len(rows)), nil
	}
	for i, check := range t.checks {
		if check == nil {
			continue
		}
		if refusal := check(rows[i]); refusal != nil {
			return refusal, nil
		}
	}
	t.sql.Reset()
	t.args, t.checks = nil, nil
	return nil, nil
}

// sort tells a server's refusal from trouble with the connection.
func sort(err error) (refusal, trouble error) {
	switch {
	case err == nil:
		return nil, nil
	case numberOf(err) != 0:
		return err, nil
	case errors.Is(err, driver.ErrSkip):
		// The library counts other placeholders than we do, or the text does not fit a
		// packet: it has sent nothing.
		return errors.New("the statements and their arguments do not fit into one message to the server"), nil
	default:
		return nil, err
	}
}
