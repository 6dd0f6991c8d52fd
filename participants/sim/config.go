package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// maxRandomDelay bounds DelayMax: the abstract service answers within it.
	maxRandomDelay = 100 * time.Millisecond
	// maxDelay bounds the delays that are asked for on purpose, to hold a gap open
	// in a demo. A service that is slower than the longest transaction shows
	// nothing more.
	maxDelay = time.Minute
)

// Config is the driver's configuration. The zero value of each rate and delay
// means what its comment says.
type Config struct {
	// SuccessRate is the chance, from 0 to 1, that a call succeeds; 1 when absent.
	// A prepare that does not is a no, a commit or an abort is an error and will
	// be asked again.
	SuccessRate *float64 `json:"success_rate"`
	// These go before SuccessRate for one kind of call. A commit success rate of 0
	// never finishes.
	PrepareSuccessRate *float64 `json:"prepare_success_rate"`
	CommitSuccessRate  *float64 `json:"commit_success_rate"`
	AbortSuccessRate   *float64 `json:"abort_success_rate"`

	// DelayMax is the longest random delay of a call, at most 100ms; 0 when
	// absent. The delays below are fixed and come on top, each at most 1m.
	DelayMax     Duration `json:"delay_max"`
	PrepareDelay Duration `json:"prepare_delay"`
	CommitDelay  Duration `json:"commit_delay"`
	AbortDelay   Duration `json:"abort_delay"`

	// Seed makes chance repeat itself: with the same seed, the n-th call of a kind
	// on the same branch has the same fate, however calls interleave. A random one
	// is drawn, and logged, when absent.
	Seed *uint64 `json:"seed"`
}

// Duration is a time.Duration that is written as in "50ms".
type Duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf(`want a duration such as "50ms": %w`, err)
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var problems []error
	for _, r := range []struct {
		name string
		rate *float64
	}{
		{"success_rate", c.SuccessRate},
		{"prepare_success_rate", c.PrepareSuccessRate},
		{"commit_success_rate", c.CommitSuccessRate},
		{"abort_success_rate", c.AbortSuccessRate},
	} {
		if r.rate != nil && !(*r.rate >= 0 && *r.rate <= 1) {
			problems = append(problems, fmt.Errorf("%s is %v, want 0 to 1", r.name, *r.rate))
		}
	}
	for _, d := range []struct {
		name  string
		delay Duration
		most  time.Duration
	}{
		{"delay_max", c.DelayMax, maxRandomDelay},
		{"prepare_delay", c.PrepareDelay, maxDelay},
		{"commit_delay", c.CommitDelay, maxDelay},
		{"abort_delay", c.AbortDelay, maxDelay},
	} {
		if d.delay < 0 || time.Duration(d.delay) > d.most {
			problems = append(problems, fmt.Errorf("%s is %s, want 0 to %s", d.name, time.Duration(d.delay), d.most))
		}
	}
	return errors.Join(problems...)
}

func parseConfig(config []byte) (Config, error) {
	var c Config
	if len(bytes.TrimSpace(config)) == 0 {
		return c, nil
	}
	d := json.NewDecoder(bytes.NewReader(config))
	d.DisallowUnknownFields()
	err := d.Decode(&c)
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = errors.New("something follows the JSON object")
		}
	}
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		return Config{}, fmt.Errorf("sim configuration: %w", err)
	}
	return c, nil
}

// rate is the chance of success of a kind of call.
func (c Config) rate(o op) float64 {
	own := [...]*float64{prepare: c.PrepareSuccessRate, commit: c.CommitSuccessRate, abort: c.AbortSuccessRate}[o]
	switch {
	case own != nil:
		return *own
	case c.SuccessRate != nil:
		return *c.SuccessRate
	default:
		return 1
	}
}

func (c Config) delay(o op) time.Duration {
	return time.Duration([...]Duration{prepare: c.PrepareDelay, commit: c.CommitDelay, abort: c.AbortDelay}[o])
}

// wish is what a payload may ask for. Any other payload is data, and wishes for
// nothing.
type wish struct {
	Vote   string `json:"vote"` // "commit", "read-only" or "abort"
	Reason string `json:"reason"`
	// Delay comes on top in prepare, the others in their calls.
	Delay       Duration `json:"delay"`
	CommitDelay Duration `json:"commit_delay"`
	AbortDelay  Duration `json:"abort_delay"`
}

// wishOf reads a payload's wishes. An error means that it asks for something that
// cannot be.
func wishOf(payload []byte) (wish, error) {
	var probe map[string]json.RawMessage
	if json.Unmarshal(payload, &probe) != nil {
		return wish{}, nil
	}
	var w wish
	if err := json.Unmarshal(payload, &w); err != nil {
		return wish{}, fmt.Errorf("payload: %w", err)
	}
	switch w.Vote {
	case "", "commit", "read-only", "abort":
	default:
		return wish{}, fmt.Errorf("payload: vote %.32q is none of commit, read-only, abort", w.Vote)
	}
	for _, d := range []Duration{w.Delay, w.CommitDelay, w.AbortDelay} {
		if d < 0 || time.Duration(d) > maxDelay {
			return wish{}, fmt.Errorf("payload: a delay of %s, want 0 to %s", time.Duration(d), maxDelay)
		}
	}
	return w, nil
}
