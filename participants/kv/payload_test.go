package kv

// The payload language: what is accepted, what is refused and how it is told, and
// what each operation does to the data. A fuzz test holds that nothing else gets
// through.

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParsePayloadRefuses(t *testing.T) {
	long := strings.Repeat("k", MaxKey+1)
	for _, tc := range []struct{ payload, want string }{
		{``, "JSON object"},
		{`null`, "JSON object"},
		{`[]`, "JSON object"},
		{`{`, "EOF"},
		{`{}`, "at least one"},
		{`{"ops": []}`, "at least one"},
		{`{"ops": null}`, "at least one"},
		{`{"ops": {}}`, "at least one"},
		{`{"ops": [null]}`, "operation 1: want a JSON object"},
		{`{"ops": [{"op": "put", "key": "a", "value": "x"}], "Ops": []}`, `unknown field "Ops"`},
		{`{"ops": [{"op": "put", "key": "a", "value": "x"}]} {}`, "follows"},
		{`{"ops": [{"op": "put", "key": "a", "value": "x"}], "ops": []}`, `"ops" twice`},
		{"{\"ops\": [{\"op\": \"put\", \"key\": \"a\", \"value\": \"\xff\"}]}", "UTF-8"},
		{`{"ops": [{"op": "move", "key": "a"}]}`, `"move" is none of`},
		{`{"ops": [{"key": "a"}]}`, `"op" is missing`},
		{`{"ops": [{"op": "delete"}]}`, `"key" is missing`},
		{`{"ops": [{"op": "delete", "key": ""}]}`, `"key" is missing or empty`},
		{`{"ops": [{"op": "delete", "key": 5}]}`, "want a string"},
		{`{"ops": [{"op": "delete", "key": null}]}`, "want a string"},
		{`{"ops": [{"op": "delete", "key": "` + long + `"}]}`, "513 bytes"},
		{`{"ops": [{"op": "delete", "key": "a", "key": "b"}]}`, `"key" twice`},
		{`{"ops": [{"op": "delete", "key": "a", "KEY": "b"}]}`, `"KEY": unknown`},
		{`{"ops": [{"op": "delete", "key": "a", "value": "x"}]}`, "does not belong"},
		{`{"ops": [{"op": "put", "key": "a"}]}`, `"value" is missing`},
		{`{"ops": [{"op": "put", "key": "a", "value": 5}]}`, "want a string"},
		{`{"ops": [{"op": "put", "key": "a", "value": "` + strings.Repeat("v", MaxValue+1) + `"}]}`, "65537 bytes"},
		{`{"ops": [{"op": "add", "key": "a"}]}`, `"amount" is missing`},
		{`{"ops": [{"op": "add", "key": "a", "amount": 1.5}]}`, "whole number"},
		{`{"ops": [{"op": "add", "key": "a", "amount": 1e3}]}`, "whole number"},
		{`{"ops": [{"op": "add", "key": "a", "amount": "+5"}]}`, "whole number"},
		{`{"ops": [{"op": "add", "key": "a", "amount": "05"}]}`, "whole number"},
		{`{"ops": [{"op": "add", "key": "a", "amount": " 5"}]}`, "whole number"},
		{`{"ops": [{"op": "add", "key": "a", "amount": null}]}`, "whole number"},
		{`{"ops": [{"op": "add", "key": "a", "amount": 9223372036854775808}]}`, "whole number"},
		{`{"ops": [{"op": "add", "key": "a", "amount": 1, "min": 5, "max": 4}]}`, "above max"},
		{`{"ops": [{"op": "add", "key": "a", "amount": 1, "absent": true}]}`, "does not belong"},
		{`{"ops": [{"op": "check", "key": "a"}]}`, "one of value"},
		{`{"ops": [{"op": "check", "key": "a", "value": "x", "absent": true}]}`, "one of value"},
		{`{"ops": [{"op": "check", "key": "a", "absent": false}]}`, "want true"},
		{`{"ops": [` + strings.Repeat(`{"op": "delete", "key": "a"},`, MaxOps) + `{"op": "delete", "key": "a"}]}`, "1001 operations"},
		{`{"ops": [{"op": "put", "key": "a", "value": "` + strings.Repeat("v", MaxPayload) + `"}]}`, "at most 1048576"},
	} {
		_, err := parsePayload([]byte(tc.payload))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("parse(%.80s) = %v, want a word about %s", tc.payload, err, tc.want)
		}
		if err != nil && len(err.Error()) > 512 {
			t.Errorf("parse(%.80s) fails with %d bytes of error", tc.payload, len(err.Error()))
		}
	}
}

// Integers are exact to the last bit, as numbers and as strings.
func TestIntegersAreExact(t *testing.T) {
	for _, n := range []int64{0, 1, -1, 1<<53 + 1, math.MaxInt64, math.MinInt64} {
		for _, form := range []string{"%d", `"%d"`} {
			ops, err := parsePayload(fmt.Appendf(nil, `{"ops": [{"op": "add", "key": "a", "amount": `+form+`, "min": `+form+`}]}`, n, n))
			if err != nil || ops[0].amount != n || *ops[0].min != n {
				t.Errorf("%d as %s: %+v, %v", n, form, ops, err)
			}
		}
	}
}

// What operations do, in order, to a given piece of data. The outcome is told as
// the changes and the keys relied upon, or as the reason of the no.
func TestEvaluate(t *testing.T) {
	data := map[string]string{
		"alice": "100", "name": "Alice", "max": strconv.Itoa(math.MaxInt64), "min": strconv.Itoa(math.MinInt64), "empty": "",
	}
	for _, tc := range []struct{ ops, want string }{
		{`{"op": "put", "key": "bob", "value": "5"}`, "bob=5"},
		{`{"op": "put", "key": "bob", "value": ""}`, "bob="},
		{`{"op": "delete", "key": "alice"}`, "-alice"},
		{`{"op": "delete", "key": "nobody"}`, "-nobody"},
		{`{"op": "add", "key": "alice", "amount": -100, "min": 0}`, "alice=0"},
		{`{"op": "add", "key": "alice", "amount": -101, "min": 0}`, `no: "alice": -1 is below the minimum of 0`},
		{`{"op": "add", "key": "alice", "amount": 1, "max": 100}`, `no: "alice": 101 is above the maximum of 100`},
		{`{"op": "add", "key": "bob", "amount": 7}`, "bob=7"},
		{`{"op": "add", "key": "name", "amount": 7}`, `no: add: "name": "Alice" is not a whole number of 64 bits`},
		{`{"op": "add", "key": "empty", "amount": 7}`, `no: add: "empty": "" is not a whole number of 64 bits`},
		{`{"op": "add", "key": "max", "amount": 1}`, `no: add: "max" is 9223372036854775807, and adding 1 exceeds 64 bits`},
		{`{"op": "add", "key": "min", "amount": -1}`, `no: add: "min" is -9223372036854775808, and adding -1 exceeds 64 bits`},
		{`{"op": "add", "key": "max", "amount": -1}`, "max=9223372036854775806"},
		{`{"op": "add", "key": "min", "amount": 9223372036854775807}`, "min=-1"},
		{`{"op": "add", "key": "max", "amount": "-9223372036854775808"}`, "max=-1"},
		{`{"op": "check", "key": "name", "value": "Alice"}`, "?name"},
		{`{"op": "check", "key": "name", "value": "Bob"}`, `no: check: "name" has another value`},
		{`{"op": "check", "key": "nobody", "value": "Bob"}`, `no: check: "nobody" is absent`},
		{`{"op": "check", "key": "nobody", "absent": true}`, "?nobody"},
		{`{"op": "check", "key": "empty", "absent": true}`, `no: check: "empty" is present`},
		{`{"op": "check", "key": "alice", "min": 100, "max": 100}`, "?alice"},
		{`{"op": "check", "key": "alice", "min": 101}`, `no: "alice": 100 is below the minimum of 101`},
		{`{"op": "check", "key": "name", "min": 0}`, `no: check: "name": "Alice" is not a whole number of 64 bits`},
		// Later operations see what earlier ones did.
		{`{"op": "put", "key": "bob", "value": "5"}, {"op": "add", "key": "bob", "amount": 2}, {"op": "check", "key": "bob", "value": "7"}`, "bob=7"},
		{`{"op": "delete", "key": "alice"}, {"op": "check", "key": "alice", "absent": true}, {"op": "add", "key": "alice", "amount": 1}`, "alice=1"},
		{`{"op": "check", "key": "alice", "value": "100"}, {"op": "add", "key": "bob", "amount": 1}, {"op": "check", "key": "name", "value": "Alice"}`, "bob=1 ?alice ?name"},
	} {
		ops, err := parsePayload([]byte(`{"ops": [` + tc.ops + `]}`))
		if err != nil {
			t.Errorf("%s: %v", tc.ops, err)
			continue
		}
		s, err := evaluate(ops, func(key string) (string, bool) { v, ok := data[key]; return v, ok })
		if got := tell(s, err); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.ops, got, tc.want)
		}
	}
}

func tell(s stage, err error) string {
	if err != nil {
		return "no: " + err.Error()
	}
	var words []string
	for _, c := range s.Changes {
		if c.Value == nil {
			words = append(words, "-"+c.Key)
		} else {
			words = append(words, c.Key+"="+*c.Value)
		}
	}
	for _, key := range s.Checked {
		words = append(words, "?"+key)
	}
	return strings.Join(words, " ")
}

// FuzzParsePayload holds that whatever is accepted is within the bounds, is JSON
// that any other reader reads alike, and can be evaluated and staged.
func FuzzParsePayload(f *testing.F) {
	f.Add([]byte(`{"ops": [{"op": "put", "key": "a", "value": "x"}, {"op": "delete", "key": "b"}]}`))
	f.Add([]byte(`{"ops": [{"op": "add", "key": "alice", "amount": -30, "min": "0", "max": 9223372036854775807}]}`))
	f.Add([]byte(`{"ops": [{"op": "check", "key": "a", "absent": true}, {"op": "check", "key": "b", "min": 1}]}`))
	f.Add([]byte(`{"ops": [{"op": "put", "key": "\ud800", "value": "\u0000"}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		ops, err := parsePayload(payload)
		if err != nil {
			return
		}
		var loose struct {
			Ops []struct {
				Op, Key string
				Value   *string
			}
		}
		if err := json.Unmarshal(payload, &loose); err != nil || len(loose.Ops) != len(ops) {
			t.Fatalf("another reader finds %d operations and %v, this one %d", len(loose.Ops), err, len(ops))
		}
		for i, o := range ops {
			if o.key != loose.Ops[i].Key || o.key == "" || len(o.key) > MaxKey || !utf8.ValidString(o.key) {
				t.Fatalf("operation %d has the key %q", i+1, o.key)
			}
			if kind, err := kindOf(loose.Ops[i].Op); err != nil || kind != o.kind {
				t.Fatalf("operation %d is %q, read as %d", i+1, loose.Ops[i].Op, o.kind)
			}
		}
		s, err := evaluate(ops, func(string) (string, bool) { return "", false })
		if err != nil {
			return
		}
		row, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decode[stage](nil, row); err != nil || tell(back, nil) != tell(s, nil) {
			t.Fatalf("staged %s, read back %s, %v", tell(s, nil), tell(back, nil), err)
		}
	})
}
