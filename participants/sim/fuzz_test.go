package sim

import (
	"encoding/json"
	"testing"
	"time"
)

// FuzzWish holds that a payload which is no JSON object wishes for nothing and is
// no error, since it is then the application's data; and that what is wished for is
// within the bounds: a service can't be put to sleep for ever.
func FuzzWish(f *testing.F) {
	for _, payload := range []string{
		`{"vote": "abort", "reason": "sold out"}`, `{"vote": "perhaps"}`, `{"delay": "50ms", "commit_delay": "1m"}`,
		`{"delay": "-1ns"}`, `{"delay": "1h"}`, `{"delay": 5}`, `{"DELAY": "99h"}`, `{"vote": null}`, `null`, `[]`, `pay bob 30`, ``,
	} {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		w, err := wishOf(payload)
		var object map[string]json.RawMessage
		if json.Unmarshal(payload, &object) != nil && (err != nil || w != wish{}) {
			t.Fatalf("data wishes for %+v, %v", w, err)
		}
		if err != nil && (w != wish{}) {
			t.Fatalf("refused, and wishes for %+v", w)
		}
		for _, d := range []Duration{w.Delay, w.CommitDelay, w.AbortDelay} {
			if d < 0 || time.Duration(d) > maxDelay {
				t.Fatalf("a delay of %s", time.Duration(d))
			}
		}
	})
}

// FuzzConfig holds that what is accepted has chances from 0 to 1 and bounded
// delays, and that a refusal leaves no setting behind.
func FuzzConfig(f *testing.F) {
	for _, config := range []string{
		``, `{}`, `null`, `{"success_rate": 0.5, "seed": 7}`, `{"commit_success_rate": 0, "delay_max": "100ms"}`,
		`{"success_rate": 1.0000001}`, `{"delay_max": "101ms"}`, `{"prepare_delay": "60s", "abort_delay": "1m1ns"}`,
		`{"seed": -1}`, `{"sed": 1}`, `{} {}`,
	} {
		f.Add([]byte(config))
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		c, err := parseConfig(config)
		if err != nil {
			if c != (Config{}) {
				t.Fatalf("refused, and read as %+v", c)
			}
			return
		}
		for _, o := range []op{prepare, commit, abort} {
			if r, d := c.rate(o), c.delay(o); !(r >= 0 && r <= 1) || d < 0 || d > maxDelay {
				t.Fatalf("a chance of %v and a delay of %s", r, d)
			}
		}
		if d := time.Duration(c.DelayMax); d < 0 || d > maxRandomDelay {
			t.Fatalf("a random delay of %s", d)
		}
	})
}
