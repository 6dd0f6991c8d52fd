package mysql

import (
	"database/sql/driver"
	"fmt"
	"strconv"
)

// row is one row of an answer. The server answers in text.
type row []driver.Value

// scan reads the columns into strings, numbers and bools; NULL is a type's zero.
func (r row) scan(into ...any) error {
	if len(r) != len(into) {
		return fmt.Errorf("the server answers with %d columns, want %d", len(r), len(into))
	}
	for i, to := range into {
		if err := scan(r[i], to); err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
	}
	return nil
}

func scan(value driver.Value, into any) (err error) {
	text := ""
	if value != nil {
		text = fmt.Sprint(value)
	}
	switch into := into.(type) {
	case *string:
		*into = text
	case *int64:
		*into = 0
		if text != "" {
			*into, err = strconv.ParseInt(text, 10, 64)
		}
	case *uint64:
		*into = 0
		if text != "" {
			*into, err = strconv.ParseUint(text, 10, 64)
		}
	default:
		err = fmt.Errorf("into a %T", into)
	}
	return err
}
