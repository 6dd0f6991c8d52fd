package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/decree-tx/decree/transport/client"
)

// FuzzTransactionFile holds that a file for `tx submit -f` is either refused or a
// transaction with the branches that stand there, in their order, each with exactly
// one content: JSON in its canonical form, or the bytes.
func FuzzTransactionFile(f *testing.F) {
	for _, s := range []string{
		`{"txid":"01890a5d-ac96-774b-bcce-b302099a8057","branches":[{"participant":"bank-a","json":{"b":1.10,"a":[9007199254740993]}}],"timeout":"5s","wait":"decision"}`,
		`{"branches":[{"participant":"a","payload":"Y3JlZGl0"},{"participant":"b"}],"wait":"WAIT_DELIVERY"}`,
		`{"branches":[{"participant":"a","payload":"Y3JlZGl0","json":null}]}`,
		`{"branches":[{"json":"\ud800<>&\u2028"}],"timeout":"-1s"}`,
		`{"branches":null,"wait":null}`, `{"wait":"soon"}`, `{"timeout":"5"}`, `null`, `{} {}`, ``,
		`{"branches":[{"json":` + strings.Repeat("[", 11000),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := parseTransaction(content)
		if err != nil {
			return
		}
		var file transactionFile
		if err := json.Unmarshal(content, &file); err != nil {
			t.Fatalf("accepted, and no JSON: %v", err)
		}
		var want []client.Branch
		for _, b := range file.Branches {
			payload := b.Payload
			if b.JSON != nil {
				if payload, err = canonicalJSON(b.JSON); err != nil || b.Payload != nil {
					t.Fatalf("%s and %q are accepted (%v)", b.JSON, b.Payload, err)
				}
			}
			want = append(want, client.Bytes(b.Participant, payload))
		}
		if got.TxID != file.TxID || !reflect.DeepEqual(got.Branches, want) || int(got.Wait) >= len(waits) {
			t.Fatalf("read as %+v", got)
		}
	})
}

// FuzzCanonicalJSON holds that JSON keeps its meaning, to every digit, and that its
// canonical form is its own: the same content always has the same digest.
func FuzzCanonicalJSON(f *testing.F) {
	for _, s := range []string{
		`{"b":[true,null,-1.50e3],"a":"<\u2028\ud800>"}`, `9007199254740993`, `{"a":1,"a":2}`, `"`, `1 2`, ` [ ] `, `-0`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		canonical, err := canonicalJSON(content)
		if (err == nil) != json.Valid(content) {
			t.Fatalf("%s: %v, and JSON: %v", content, err, json.Valid(content))
		}
		if err != nil {
			return
		}
		if again, err := canonicalJSON(canonical); err != nil || !bytes.Equal(again, canonical) {
			t.Fatalf("%s becomes %s, then %s, %v", content, canonical, again, err)
		}
		if a, b := meaning(content), meaning(canonical); !reflect.DeepEqual(a, b) {
			t.Fatalf("%s becomes %s", content, canonical)
		}
	})
}

func meaning(content []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	d.Decode(&v) //nolint:errcheck // it is JSON
	return carried(v)
}

// FuzzBranchFlags holds that --branch, --branch-bytes and --vote are either refused
// as wrong use, or give one branch or vote each, with the names and bytes that stand
// there. What begins with an @ names a file, and is left out.
func FuzzBranchFlags(f *testing.F) {
	for _, s := range []string{`bank-a={"a":1}`, `bank-a={`, `=1`, `a==`, `2=commit`, `0=abort`, `1=`, `65536=read-only`, ``, `a=@-`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, argument string) {
		participant, content, _ := strings.Cut(argument, "=")
		if strings.HasPrefix(content, "@") && content != "@-" {
			return
		}
		p := &program{stdin: strings.NewReader("from stdin")}
		if content == "@-" {
			content = "from stdin"
		}
		got, err := p.branches(branchFlags{bytes: []string{argument}})
		if want := []client.Branch{client.Bytes(participant, []byte(content))}; err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q is read as %+v", argument, got)
		}
		p.stdin = strings.NewReader("from stdin")
		if got, err = p.branches(branchFlags{json: []string{argument}}); err == nil {
			canonical, err := canonicalJSON([]byte(content))
			if want := []client.Branch{client.Bytes(participant, canonical)}; err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%q is read as %+v (%v)", argument, got, err)
			}
		}
		if votes, err := parseVotes([]string{argument}); err == nil && (len(votes) != 1 || votes[0].Branch < 1) {
			t.Fatalf("%q is read as %+v", argument, votes)
		}
	})
}

// FuzzDriverConfig holds that no configuration of a participant makes a driver panic
// as it checks it, and that a check is a function of the configuration alone: every
// node that is asked says the same.
func FuzzDriverConfig(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `null`, `{"target":"127.0.0.1:7401"}`, `{"url":"https://user:pass@[::1]:1/x?y#z","token":"env:TOKEN"}`,
		`{"dsn":"env:ORDERS_DSN","catalogue":{"take":{"sql":"UPDATE t SET n = ?","params":["n"]}},"raw_sql":true}`,
		`{"dsn":"file:/etc/decree/dsn","catalogue":{}}`, `{"dsn":"postgres://a:b@c/d","catalogue":{}}`,
		`{"path":"../x"}`, `{"success_rate":0.5,"delay_max":"100ms"}`, `{"url":"http://\u0000"}`, `{"target":"unix:///x"}`,
	} {
		f.Add([]byte(s))
	}
	kinds := drivers()
	f.Fuzz(func(t *testing.T, config []byte) {
		for name, d := range kinds {
			first := d.Check(config)
			if second := d.Check(config); (first == nil) != (second == nil) {
				t.Fatalf("%s: %v, then %v", name, first, second)
			}
		}
	})
}
