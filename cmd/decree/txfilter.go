package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
	"github.com/decree-tx/decree/transport/client"
)

// listFlags choose transactions on a command line.
type listFlags struct {
	states        []string
	unfinished    bool
	stuck         bool
	since, before moment
	filter        client.Filter
}

func (f *listFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.states, "state", nil, "only these `states`: "+strings.Join(stateNames(), ", "))
	flags.BoolVar(&f.unfinished, "unfinished", false, "only those that are not delivered to every branch yet")
	flags.StringVar(&f.filter.Participant, "participant", "", "only those with a branch at this `participant`")
	flags.BoolVar(&f.filter.Damaged, "damaged", false, "only those of which a branch went against the decision, and nobody has resolved it")
	flags.BoolVar(&f.stuck, "stuck", false, "only those that were decided more than a minute ago and are not delivered to every branch")
	flags.Var(&f.since, "since", "only those whose txid was made at this `time` or later: 10m ago as 10m, or 2006-01-02T15:04:05Z")
	flags.Var(&f.before, "before", "only those whose txid was made before this `time`")
	cmd.MarkFlagsMutuallyExclusive("state", "unfinished", "stuck")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(stateNames(), cobra.ShellCompDirectiveNoFileComp))
}

// stuckAfter is how long a delivery may take before somebody should look at it: many times
// what a participant's restart takes.
const stuckAfter = time.Minute

// unfinishedStates are those in which a transaction still has work to do.
var unfinishedStates = []decreev1.State{
	decreev1.State_STATE_ACTIVE, decreev1.State_STATE_PREPARING, decreev1.State_STATE_COMMITTING, decreev1.State_STATE_ABORTING,
}

// resolve reads the flags; every mistake is in the error.
func (f *listFlags) resolve() (err error) {
	if f.filter.States, err = parseStates(f.states); err != nil {
		return err
	}
	if f.unfinished {
		f.filter.States = unfinishedStates
	}
	if f.stuck {
		f.filter.States = []decreev1.State{decreev1.State_STATE_COMMITTING, decreev1.State_STATE_ABORTING}
	}
	if !f.before.Time.IsZero() && f.before.Before(f.since.Time) {
		return usagef("--before %s: is before --since %s, so that nothing can be found", f.before.text, f.since.text)
	}
	return nil
}

// judge tells whether a transaction is wanted, and whether none that is older can be:
// lists go from the youngest id to the oldest.
func (f *listFlags) judge(t *decreev1.Transaction) (wanted, last bool) {
	if f.stuck && time.Since(asTime(t.GetDecided().GetTime())) < stuckAfter {
		return false, false
	}
	if f.since.IsZero() && f.before.IsZero() {
		return true, false
	}
	made, known := madeAt(t.GetTxid())
	if !known {
		return false, false
	}
	last = made.Before(f.since.Time)
	return !last && (f.before.IsZero() || made.Before(f.before.Time)), last
}

// madeAt is when a txid was made: a UUIDv7 begins with its time, in milliseconds
// (RFC 9562, section 5.7).
func madeAt(txid string) (time.Time, bool) {
	id, err := uuid.Parse(txid)
	if err != nil || id.Version() != 7 {
		return time.Time{}, false
	}
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms), true
}

// moment is a point in time as a flag: a duration back from now, or the time itself.
type moment struct {
	time.Time
	text string
}

func (m *moment) String() string { return m.text }
func (m *moment) Type() string   { return "time" }

func (m *moment) Set(s string) error {
	m.text = s
	if back, err := time.ParseDuration(s); err == nil {
		if back < 0 {
			return fmt.Errorf("lies in the future: want a time back from now, such as 10m")
		}
		m.Time = time.Now().Add(-back)
		return nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			m.Time = t
			return nil
		}
	}
	return fmt.Errorf("want a time back from now, such as 10m, or 2006-01-02T15:04:05Z")
}
