package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// format is how results are written.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
)

var formats = []string{string(formatTable), string(formatJSON)}

func (f *format) String() string     { return string(*f) }
func (f *format) Type() string       { return "format" }
func (f *format) Set(s string) error { *f = format(s); return nil }

// printer writes results. It keeps the first error of its writer, which Run
// reports: a full disk must not look like success.
type printer struct {
	w      io.Writer
	format format
	colour colouring
	tinted bool   // set by check
	first  func() // called before anything is written, if set
	err    error
}

func (p *printer) check() error {
	if err := p.colour.check(); err != nil {
		return err
	}
	p.tinted = p.colour.on(p.w)
	if p.format != formatTable && p.format != formatJSON {
		bad := p.format
		p.format = formatTable
		return fmt.Errorf("--output %q: want table or json", string(bad))
	}
	return nil
}

func (p *printer) write(b []byte) {
	if p.err != nil {
		return
	}
	if p.first != nil {
		p.first()
	}
	_, p.err = p.w.Write(b)
}

// linef writes a line for people; its arguments are shown safely.
func (p *printer) linef(format string, args ...any) {
	for i, arg := range args {
		if s, ok := arg.(string); ok {
			args[i] = safe(s)
		}
	}
	p.write(fmt.Appendf(nil, format+"\n", args...))
}

// apiJSON is how the HTTP API writes messages.
var apiJSON = protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}

// message writes a protobuf message on one line, as the HTTP API would.
func (p *printer) message(m proto.Message) {
	b, err := apiJSON.Marshal(m)
	if err == nil {
		// protojson varies its spaces on purpose; programs that compare text
		// should not have to care.
		var compact bytes.Buffer
		if err = json.Compact(&compact, b); err == nil {
			compact.WriteByte('\n')
			p.write(compact.Bytes())
		}
	}
	if err != nil && p.err == nil {
		p.err = err
	}
}

// object writes v as JSON on one line.
func (p *printer) object(v any) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		if p.err == nil {
			p.err = err
		}
		return
	}
	p.write(b.Bytes())
}

// emptyCell stands where a cell is empty.
const emptyCell = "-"

// table writes rows under a header, in columns.
func (p *printer) table(header []string, rows [][]string) {
	p.write(p.laidOut(header, rows))
}

func (p *printer) laidOut(header []string, rows [][]string) []byte {
	lines := [][]cell{nil}
	for _, name := range header {
		lines[0] = append(lines[0], cell{name, bold})
	}
	for _, row := range rows {
		var line []cell
		for i, text := range row {
			c := cell{safe(text), tintOf(strings.ToLower(header[i]), text)}
			if text == "" {
				c.text = emptyCell
			}
			line = append(line, c)
		}
		lines = append(lines, line)
	}
	return layOut(lines, p.tinted)
}

// fields writes name and value, a line each; values that are empty are left out.
func (p *printer) fields(pairs ...string) {
	p.write(p.laidOutFields(pairs...))
}

func (p *printer) laidOutFields(pairs ...string) []byte {
	width := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, displayWidth(pairs[i]))
		}
	}
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		name, value := pairs[i], pairs[i+1]
		if value == "" {
			continue
		}
		b.WriteString(name + strings.Repeat(" ", width-displayWidth(name)) + columnGap)
		first, _, _ := strings.Cut(value, " (")
		b.WriteString(p.paint(tintOf(name, first), safe(value)) + "\n")
	}
	return []byte(b.String())
}

// paint colours text that is safe, where colours are wanted.
func (p *printer) paint(t tint, text string) string {
	if !p.tinted {
		return text
	}
	return t.paint(text)
}

// safe makes text from outside fit to show: control characters, and others that
// do not print, such as those that turn the direction of writing, are escaped, so
// that a name or a reason cannot drive the terminal or fake a line.
func safe(s string) string {
	if !strings.ContainsFunc(s, unprintable) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if unprintable(r) || r == utf8.RuneError && n == 1 {
			b.WriteString(strings.Trim(strconv.QuoteToASCII(s[i:i+n]), `"`))
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// shortTime is a moment as people read it, to the millisecond; empty when unset.
func shortTime(t time.Time) string {
	if t.IsZero() || t.Unix() == 0 {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05.000")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
