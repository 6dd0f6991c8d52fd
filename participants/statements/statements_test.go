package statements

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// What is proven here: what a client may ask of a database is what the operator
// allowed, arguments reach their places exactly as they were written, and whatever
// else comes in a payload is refused with a text that says what to change.

func rows(n int64) *int64 { return &n }

func bank(rawSQL bool) Set {
	return Set{RawSQL: rawSQL, Catalogue: map[string]Entry{
		"debit": {SQL: "UPDATE account SET balance = balance - ? WHERE id = ? AND balance >= ?", Params: []string{"amount", "id", "amount"}, ExpectRows: rows(1)},
		"touch": {SQL: "UPDATE t SET n = n + 1"},
	}}
}

func TestParse(t *testing.T) {
	debit := bank(false).Catalogue["debit"]
	tests := []struct {
		name, payload string
		want          []Statement
	}{
		{"arguments by name, one of them in two places", `{"statements":[{"name":"debit","args":{"id":"alice","amount":30}}]}`,
			[]Statement{{"debit", debit.SQL, []any{json.Number("30"), "alice", json.Number("30")}, rows(1)}}},
		{"arguments in order, and one statement alone", `{"name":"debit","args":[30,"alice",30]}`,
			[]Statement{{"debit", debit.SQL, []any{json.Number("30"), "alice", json.Number("30")}, rows(1)}}},
		{"no arguments", `{"name":"touch"}`, []Statement{{Name: "touch", SQL: "UPDATE t SET n = n + 1"}}},
		{"SQL of its own, every kind of argument, and every digit",
			`{"statements":[{"sql":"INSERT ...","args":[null,true,"x; DROP TABLE y",9007199254740993,1.10,{"a" : [1]},[]],"expect_rows":0},{"name":"touch","args":[]}]}`,
			[]Statement{
				{SQL: "INSERT ...", Args: []any{nil, true, "x; DROP TABLE y", json.Number("9007199254740993"), json.Number("1.10"), `{"a":[1]}`, "[]"}, ExpectRows: rows(0)},
				{Name: "touch", SQL: "UPDATE t SET n = n + 1", Args: []any{}},
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := bank(true).Parse([]byte(tt.payload))
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				if len(got[i].Args) == 0 && len(tt.want[i].Args) == 0 {
					got[i].Args, tt.want[i].Args = nil, nil
				}
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, payload, want string }{
		{"SQL where only the catalogue counts", `{"statements":[{"sql":"DROP TABLE account"}]}`, "statement 1: this participant takes statements of its catalogue only"},
		{"a statement that nobody registered", `{"name":"drop"}`, `the catalogue has no "drop"`},
		{"both", `{"name":"touch","sql":"x"}`, `both "name" and "sql"`},
		{"neither", `{"statements":[{"args":[]}]}`, `neither "name" nor "sql"`},
		{"an expectation against the operator's", `{"name":"debit","args":[1,"a",1],"expect_rows":0}`, "catalogue's to say"},
		{"too few arguments", `{"name":"debit","args":[1]}`, "1 args, want 3: amount, id, amount"},
		{"an argument missing", `{"name":"debit","args":{"id":"a"}}`, `arg "amount" is missing`},
		{"an argument too many", `{"name":"debit","args":{"id":"a","amount":1,"who":2}}`, `unknown arg "who"`},
		{"arguments that are no list", `{"name":"touch","args":7}`, `"args"`},
		{"a misspelt field", `{"statments":[]}`, `unknown field "statments"`},
		{"nothing", `{}`, "no statement"},
		{"an empty list", `{"statements":[]}`, "no statement"},
		{"null", `null`, "no statement"},
		{"a list and one beside it", `{"statements":[{"name":"touch"}],"name":"touch"}`, "beside them"},
		{"two payloads", `{"name":"touch"}{"name":"touch"}`, "more than one"},
		{"no JSON", "\x00\xff", "payload"},
		{"too many", `{"statements":[` + strings.Repeat(`{"name":"touch"},`, MaxStatements) + `{"name":"touch"}]}`, "257 statements, at most 256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := bank(false).Parse([]byte(tt.payload)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v; want a refusal with %q", got, err, tt.want)
			}
		})
	}
	raw := []struct{ name, payload, want string }{
		{"a negative expectation", `{"sql":"x","expect_rows":-1}`, "want 0 or more"},
		{"half a row", `{"sql":"x","expect_rows":0.5}`, "expect_rows"},
		{"a blank", `{"sql":" \n"}`, "missing or empty"},
		{"a zero byte", `{"sql":"x\u0000"}`, "zero byte"},
		{"named arguments without names", `{"sql":"x","args":{"a":1}}`, `"args"`},
		{"a book", fmt.Sprintf(`{"sql":%q}`, strings.Repeat("x", MaxSQL+1)), "at most 65536"},
		{"too many arguments", `{"sql":"x","args":[` + strings.Repeat("1,", MaxArgs) + `1]}`, "4097 args"},
	}
	for _, tt := range raw {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := bank(true).Parse([]byte(tt.payload)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v; want a refusal with %q", got, err, tt.want)
			}
		})
	}
}

func TestValidateSaysAllOfIt(t *testing.T) {
	if err := bank(false).Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (Set{RawSQL: true}).Validate(); err != nil {
		t.Fatal(err)
	}
	err := Set{Catalogue: map[string]Entry{
		"":      {SQL: "x"},
		"debit": {Params: []string{"a b"}, ExpectRows: rows(-1)},
	}}.Validate()
	for _, want := range []string{`"" is no name`, `"debit": "sql" is missing`, "want 0 or more", `param "a b"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if err := (Set{}).Validate(); err == nil || !strings.Contains(err.Error(), "nothing could be asked") {
		t.Errorf("the empty set: %v", err)
	}
	if err := (Set{Catalogue: map[string]Entry{}}).Validate(); err != nil {
		t.Errorf("a catalogue that is empty on purpose: %v", err)
	}
}

func TestUnexpected(t *testing.T) {
	s := Statement{Name: "debit", ExpectRows: rows(1)}
	if s.Unexpected(1) != "" || (Statement{}).Unexpected(7) != "" {
		t.Error("what was expected is called unexpected")
	}
	if got, want := s.Unexpected(0), `statement "debit" touched 0 rows, expected 1`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// BenchmarkParse: every branch of a database costs one on the leader.
func BenchmarkParse(b *testing.B) {
	set, payload := bank(false), []byte(`{"name":"debit","args":{"id":"alice","amount":30}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := set.Parse(payload); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzParse: whatever comes in, there is an answer, and an accepted payload holds
// only statements that the set allows (R14: and no more of them than the bound).
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"name":"debit","args":{"id":"a","amount":1}}`, `{"statements":[{"name":"touch"},{"name":"debit","args":[1,2,3]}]}`,
		`{"sql":"DROP TABLE t"}`, `null`, `[]`, `{"statements":null,"name":"touch","args":null}`, `{"name":"debit","args":[{},[],""]}`, ``,
	} {
		f.Add([]byte(seed))
	}
	set := bank(false)
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := set.Parse(payload)
		if err != nil {
			return
		}
		if len(got) == 0 || len(got) > MaxStatements {
			t.Fatalf("%d statements", len(got))
		}
		for _, s := range got {
			entry, ok := set.Catalogue[s.Name]
			if !ok || entry.SQL != s.SQL || len(s.Args) != len(entry.Params) {
				t.Fatalf("%+v is not of the catalogue", s)
			}
		}
	})
}

// FuzzSet: a set that an operator registers may be anything; one that passes takes
// only statements that pass alone too, and no payload makes it panic.
func FuzzSet(f *testing.F) {
	f.Add([]byte(`{"catalogue":{"touch":{"sql":"UPDATE t SET n = n + ?","params":["n"],"expect_rows":1}}}`), []byte(`{"name":"touch","args":{"n":1}}`))
	f.Add([]byte(`{"catalogue":{"touch":{"sql":"UPDATE t","params":["n","n"]}},"raw_sql":true}`), []byte(`{"statements":[{"sql":"SELECT 1","args":[1e999]}]}`))
	f.Add([]byte(`{"catalogue":{"a b":{"sql":" "}}}`), []byte(`{"name":"a b"}`))
	f.Add([]byte(`{"catalogue":{}}`), []byte(`{"name":""}`))
	f.Fuzz(func(t *testing.T, config, payload []byte) {
		var set Set
		if decode(config, &set) != nil || set.Validate() != nil {
			return
		}
		got, err := set.Parse(payload)
		if err != nil {
			return
		}
		for _, s := range got {
			if s.Name == "" && !set.RawSQL {
				t.Fatalf("%q runs, and no SQL is allowed", s.SQL)
			}
			if err := checkSQL(s.SQL); err != nil || len(s.Args) > MaxArgs || checkRows(s.ExpectRows) != nil {
				t.Fatalf("%+v passes: %v", s, err)
			}
		}
	})
}
