package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/decree-tx/decree/cmd/internal/misspell"
)

// Source is where a value comes from, in words.
type Source string

// The sources, the strongest first.
const (
	FromFlag    Source = "flag"
	FromEnv     Source = "env"
	FromFile    Source = "file"
	FromDefault Source = "default"
)

// Setting is one setting as it stands, for people to look at.
type Setting struct {
	Name   string `json:"name"`  // as a flag
	Value  string `json:"value"` // redacted, where it is a secret
	Source Source `json:"source"`
	// Place is the flag, the variable, or the file and the line; empty for a default.
	Place string `json:"place,omitempty"`
}

// Problem is one mistake in a configuration.
type Problem struct {
	// Setting is what the mistake is in, as its place spells it; empty where it is in
	// none.
	Setting string `json:"setting,omitempty"`
	// Place is where it stands: a flag, a variable, a file or a line of one; empty where
	// nothing is set.
	Place string `json:"place,omitempty"`
	Text  string `json:"problem"`
}

func (p *Problem) Error() string {
	parts := []string{p.Place, p.Setting, p.Text}
	if strings.HasPrefix(p.Place, "--") || strings.HasPrefix(p.Place, envPrefix) {
		parts[1] = "" // the place says it
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// origin is where a setting was set.
type origin struct {
	source Source
	place  string
	name   string // as it is spelt there
}

// reading is a configuration as it is put together.
type reading struct {
	config   Server
	settings []setting // of config
	origins  map[string]origin
	problems []*Problem
}

// Explain is Load with where each value comes from, and each mistake by itself.
// Validate's mistakes are placed where the setting was set. Secrets are redacted, and so
// are passwords in URLs.
func Explain(flags *pflag.FlagSet, environ, ignored []string) (Server, []Setting, []*Problem) {
	r := &reading{config: Default(), origins: map[string]origin{}}
	r.settings = r.config.settings()
	env := decreeVariables(environ)
	if path := filePath(flags, env); path != "" {
		r.fromFile(path)
	}
	r.fromEnv(env, ignored)
	r.fromFlags(flags)
	r.validate()
	return r.config, r.explain(), r.problems
}

// CheckFile judges a file by itself: no flags, no variables. What a file may leave to
// them is no mistake of it.
func CheckFile(path string) []*Problem {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	Register(flags)
	if err := flags.Set(fileFlag, path); err != nil {
		return []*Problem{{Text: err.Error()}}
	}
	_, _, problems := Explain(flags, nil, nil)
	return slices.DeleteFunc(problems, func(p *Problem) bool { return p.Place == "" })
}

func (r *reading) complain(at origin, err error) {
	r.problems = append(r.problems, &Problem{Setting: at.name, Place: at.place, Text: err.Error()})
}

// set gives a setting a value, from somewhere.
func (r *reading) set(s setting, text string, at origin) {
	if err := s.value.set(text); err != nil {
		r.complain(at, err)
		return
	}
	r.origins[s.name] = at
}

// validate places what Validate finds.
func (r *reading) validate() {
	for _, err := range flatten(r.config.Validate()) {
		var p *Problem
		if !errors.As(err, &p) {
			p = &Problem{Text: err.Error()}
		}
		if at, set := r.origins[p.Setting]; set {
			p = &Problem{Setting: at.name, Place: at.place, Text: p.Text}
		}
		r.problems = append(r.problems, p)
	}
}

// flatten takes apart what errors.Join made.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

func (r *reading) explain() []Setting {
	var all []Setting
	derived := map[string]string{"raft-advertise": r.config.AdvertisedRaft(), "grpc-advertise": r.config.AdvertisedGRPC()}
	for _, s := range r.settings {
		shown := Setting{Name: s.name, Value: s.value.show(), Source: FromDefault}
		if shown.Value == "" {
			shown.Value = derived[s.name]
		}
		if s.value.secret && shown.Value != "" {
			shown.Value = redacted
		}
		shown.Value = withoutPassword(shown.Value)
		if at, set := r.origins[s.name]; set {
			shown.Source, shown.Place = at.source, at.place
		}
		all = append(all, shown)
	}
	return all
}

// redacted stands for a secret.
const redacted = "(redacted)"

// withoutPassword hides the password in a URL.
func withoutPassword(value string) string {
	if !strings.Contains(value, "://") {
		return value
	}
	u, err := url.Parse(value)
	if err != nil || u.User == nil {
		return value
	}
	return u.Redacted()
}

// unknownSetting adds a guess at what was meant to an error about an unknown name.
func unknownSetting(name string, known []string) error {
	if near := misspell.Near(name, known); near != "" {
		return fmt.Errorf("no such setting; did you mean %s?", near)
	}
	return errors.New("no such setting")
}
