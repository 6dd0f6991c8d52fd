// Package logs makes a process's logger, whose levels can be changed while it runs: of
// the whole, and of each named part.
//
// It owns the tree of names. A part without a level of its own has that of the part
// above it. It refuses to know who may change them.
package logs

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// root is the name of the whole.
const root = "decree"

// Levels are those of a process's loggers. Its methods may be called concurrently.
type Levels struct {
	mu    sync.Mutex
	parts map[string]*part // guarded by mu: by name; they are as many as the code names
}

// part is one named part.
type part struct {
	level atomic.Int32 // in force
	own   hclog.Level  // guarded by Levels.mu: NoLevel where it has that of the part above
}

// New makes a logger that writes to w, as JSON lines or as text, and its levels.
func New(w io.Writer, level hclog.Level, json bool) (hclog.Logger, *Levels) {
	ls := &Levels{parts: map[string]*part{}}
	p := &part{own: level}
	p.level.Store(int32(level))
	ls.parts[root] = p
	// Everything passes the inner logger: it is the parts that say what does not.
	inner := hclog.New(&hclog.LoggerOptions{Name: root, Level: hclog.Trace, Output: w, JSONFormat: json})
	return &logger{Logger: inner, levels: ls, part: p}, ls
}

// Level is the level of one part.
type Level struct {
	Logger string `json:"logger"`
	Level  string `json:"level"`
	Own    bool   `json:"own"` // and not that of the part above
}

// All tells the levels in force, by name.
func (ls *Levels) All() []Level {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	all := make([]Level, 0, len(ls.parts))
	for name, p := range ls.parts {
		all = append(all, Level{Logger: name, Level: p.current().String(), Own: p.own != hclog.NoLevel})
	}
	slices.SortFunc(all, func(a, b Level) int { return strings.Compare(a.Logger, b.Logger) })
	return all
}

// inherit asks for the level of the part above.
const inherit = "inherit"

// Set changes the level of a part, of the whole where name is empty: trace, debug, info,
// warn, error or off; or inherit, for that of the part above. A part may be named
// without the whole's "decree." before it.
func (ls *Levels) Set(name, level string) error {
	l := hclog.LevelFromString(level)
	if l == hclog.NoLevel && level != inherit {
		return fmt.Errorf("level %q: want trace, debug, info, warn, error, off or inherit", level)
	}
	if name = fullName(name); name == root && level == inherit {
		return fmt.Errorf("nothing is above %s: name a level", root)
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	p, ok := ls.parts[name]
	if !ok {
		return fmt.Errorf("there is no logger %q; there are %s", name, strings.Join(ls.names(), ", "))
	}
	p.own = l
	ls.settle()
	return nil
}

func fullName(name string) string {
	switch {
	case name == "", name == root:
		return root
	case strings.HasPrefix(name, root+"."):
		return name
	default:
		return root + "." + name
	}
}

// names lists the parts; mu is held.
func (ls *Levels) names() []string {
	var names []string
	for name := range ls.parts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// settle gives every part the level in force; mu is held.
func (ls *Levels) settle() {
	for _, name := range ls.names() { // what is above comes first
		p := ls.parts[name]
		p.level.Store(int32(ls.inForce(name, p)))
	}
}

// inForce is a part's own level, or that of the nearest part above; mu is held.
func (ls *Levels) inForce(name string, p *part) hclog.Level {
	for p.own == hclog.NoLevel {
		name = name[:strings.LastIndexByte(name, '.')]
		if above, ok := ls.parts[name]; ok {
			p = above
		}
	}
	return p.own
}

// find returns the part of a name, which is made at its first logger.
func (ls *Levels) find(name string) *part {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	p, ok := ls.parts[name]
	if !ok {
		p = &part{own: hclog.NoLevel}
		ls.parts[name] = p
		p.level.Store(int32(ls.inForce(name, p)))
	}
	return p
}

func (p *part) current() hclog.Level { return hclog.Level(p.level.Load()) }

// logger is an hclog.Logger of one part.
type logger struct {
	hclog.Logger // lets everything through
	levels       *Levels
	part         *part
}

var _ hclog.Logger = (*logger)(nil)

func (l *logger) passes(level hclog.Level) bool { return level >= l.part.current() }

// Log implements hclog.Logger, as the methods after it do.
func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	if l.passes(level) {
		l.Logger.Log(level, msg, args...)
	}
}

func (l *logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *logger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *logger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *logger) IsTrace() bool { return l.passes(hclog.Trace) }
func (l *logger) IsDebug() bool { return l.passes(hclog.Debug) }
func (l *logger) IsInfo() bool  { return l.passes(hclog.Info) }
func (l *logger) IsWarn() bool  { return l.passes(hclog.Warn) }
func (l *logger) IsError() bool { return l.passes(hclog.Error) }

func (l *logger) With(args ...any) hclog.Logger {
	return &logger{l.Logger.With(args...), l.levels, l.part}
}

func (l *logger) Named(name string) hclog.Logger {
	inner := l.Logger.Named(name)
	return &logger{inner, l.levels, l.levels.find(inner.Name())}
}

func (l *logger) ResetNamed(name string) hclog.Logger {
	inner := l.Logger.ResetNamed(fullName(name))
	return &logger{inner, l.levels, l.levels.find(inner.Name())}
}

func (l *logger) GetLevel() hclog.Level { return l.part.current() }

func (l *logger) SetLevel(level hclog.Level) {
	l.levels.mu.Lock()
	defer l.levels.mu.Unlock()
	l.part.own = level
	l.levels.settle()
}
