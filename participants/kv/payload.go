package kv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Bounds of one branch (rule R14).
const (
	// MaxOps keeps one branch from holding up the group commit that it is in: a
	// thousand operations are some milliseconds of B+tree work.
	MaxOps = 1000
	// MaxKey is in bytes. It leaves room in bbolt's 32 KiB, and in error messages.
	MaxKey = 512
	// MaxValue is in bytes: a page or two; larger things belong in a blob store
	// whose name is kept here.
	MaxValue = 64 << 10
	// MaxPayload is in bytes, JSON included.
	MaxPayload = 1 << 20
)

type opKind uint8

const (
	opCheck opKind = iota + 1
	opPut
	opDelete
	opAdd
)

func kindOf(name string) (opKind, error) {
	switch name {
	case "check":
		return opCheck, nil
	case "put":
		return opPut, nil
	case "delete":
		return opDelete, nil
	case "add":
		return opAdd, nil
	default:
		return 0, fmt.Errorf("%.64q is none of check, put, delete, add", name)
	}
}

// fields are those that an operation of this kind must have and may have, beside
// op and key.
func (k opKind) fields() (must, may []string) {
	switch k {
	case opCheck:
		return nil, []string{"value", "absent", "min", "max"}
	case opPut:
		return []string{"value"}, nil
	case opAdd:
		return []string{"amount"}, []string{"min", "max"}
	default:
		return nil, nil
	}
}

// op is one operation of a payload. Pointers are nil where the field was absent.
type op struct {
	kind     opKind
	key      string
	value    *string
	absent   bool
	amount   int64
	min, max *int64
}

// errPayload is wrapped by everything that is wrong with a payload.
var errPayload = errors.New("bad payload")

// parsePayload reads a payload strictly: a field that is unknown, repeated or
// spelt in other case, a number that is not an exact 64-bit integer, or text
// that is not UTF-8 is an error, since a misread amount is money.
func parsePayload(payload []byte) ([]op, error) {
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errPayload, len(payload), MaxPayload)
	}
	if !utf8.Valid(payload) {
		return nil, fmt.Errorf("%w: not UTF-8", errPayload)
	}
	var raw json.RawMessage
	if err := eachField(payload, func(name string, value json.RawMessage) error {
		if name != "ops" {
			return fmt.Errorf("unknown field %.64q", name)
		}
		raw = value
		return nil
	}); err != nil {
		return nil, fmt.Errorf("%w: %w", errPayload, err)
	}
	var items []json.RawMessage
	if raw == nil || json.Unmarshal(raw, &items) != nil || len(items) == 0 {
		return nil, fmt.Errorf(`%w: want {"ops": [...]} with at least one operation`, errPayload)
	}
	if len(items) > MaxOps {
		return nil, fmt.Errorf("%w: %d operations, at most %d", errPayload, len(items), MaxOps)
	}
	ops := make([]op, len(items))
	for i, item := range items {
		var err error
		if ops[i], err = parseOp(item); err != nil {
			return nil, fmt.Errorf("%w: operation %d: %w", errPayload, i+1, err)
		}
	}
	return ops, nil
}

func parseOp(item json.RawMessage) (op, error) {
	var o op
	var seen []string
	err := eachField(item, func(name string, value json.RawMessage) error {
		seen = append(seen, name)
		if err := o.set(name, value); err != nil {
			return fmt.Errorf("field %.64q: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return op{}, err
	}
	return o, o.validate(seen)
}

func (o *op) set(name string, value json.RawMessage) (err error) {
	switch name {
	case "op":
		var kind string
		if kind, err = parseString(value, MaxKey); err == nil {
			o.kind, err = kindOf(kind)
		}
	case "key":
		o.key, err = parseString(value, MaxKey)
	case "value":
		var s string
		s, err = parseString(value, MaxValue)
		o.value = &s
	case "absent":
		o.absent = true
		if string(value) != "true" {
			err = errors.New("want true")
		}
	case "amount":
		o.amount, err = parseInt(value)
	case "min":
		o.min, err = parseBound(value)
	case "max":
		o.max, err = parseBound(value)
	default:
		err = errors.New("unknown")
	}
	return err
}

func (o *op) validate(seen []string) error {
	switch {
	case o.kind == 0:
		return errors.New(`field "op" is missing`)
	case o.key == "":
		return errors.New(`field "key" is missing or empty`)
	case o.min != nil && o.max != nil && *o.min > *o.max:
		return fmt.Errorf("min %d is above max %d", *o.min, *o.max)
	}
	must, may := o.kind.fields()
	for _, name := range seen {
		if name != "op" && name != "key" && !slices.Contains(must, name) && !slices.Contains(may, name) {
			return fmt.Errorf("field %q does not belong to this operation", name)
		}
	}
	for _, name := range must {
		if !slices.Contains(seen, name) {
			return fmt.Errorf("field %q is missing", name)
		}
	}
	if o.kind == opCheck && o.conditions() != 1 {
		return errors.New("a check wants one of value, absent, or min and max")
	}
	return nil
}

func (o *op) conditions() (n int) {
	for _, given := range []bool{o.value != nil, o.absent, o.min != nil || o.max != nil} {
		if given {
			n++
		}
	}
	return n
}

// eachField calls fn for the fields of one JSON object, in order. It refuses
// what encoding/json lets pass: a field that stands there twice, and anything
// behind the object.
func eachField(object []byte, fn func(name string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(object))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return errors.New("want a JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, ok := token.(string)
		if !ok || seen[name] {
			return fmt.Errorf("field %.64q twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if err := fn(name, value); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the JSON object")
	}
	return nil
}

func parseString(value json.RawMessage, limit int) (string, error) {
	var s *string
	if err := json.Unmarshal(value, &s); err != nil || s == nil {
		return "", errors.New("want a string")
	}
	if len(*s) > limit {
		return "", fmt.Errorf("%d bytes, at most %d", len(*s), limit)
	}
	return *s, nil
}

// parseInt reads an integer given as a number or as a string of one.
func parseInt(value json.RawMessage) (int64, error) {
	text := string(value)
	if len(text) > 0 && text[0] == '"' {
		if err := json.Unmarshal(value, &text); err != nil {
			return 0, err
		}
	}
	return parseStored(text)
}

func parseBound(value json.RawMessage) (*int64, error) {
	n, err := parseInt(value)
	return &n, err
}

// parseStored reads an integer in the one form in which this package writes it,
// so that a number has one spelling: no plus sign, no leading zero.
func parseStored(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%.64q is not a whole number of 64 bits", text)
	}
	return n, nil
}
