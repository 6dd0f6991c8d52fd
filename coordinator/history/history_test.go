package history

// What is proven: the judge accepts what a register that is written once could have
// told, and refuses what it could not, in particular each way in which a failover
// could lose or flip a decision (R1, R2, R5); a history survives being written; and
// a violation leaves a page, the calls and the way to play it again.

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
)

// op is a call from one tick to another; to 0 never returns.
func op(k Kind, a Answer, from, to int64) Op {
	return Op{Client: int(from), Kind: k, TxID: "t1", Answer: a, Call: from, Return: to}
}

func TestJudge(t *testing.T) {
	tests := []struct {
		name  string
		ops   []Op
		wrong bool
	}{
		{"told once", []Op{op(Run, Committed, 1, 2)}, false},
		{"told twice the same", []Op{op(Run, Committed, 1, 2), op(Run, Committed, 3, 4)}, false},
		{"flipped", []Op{op(Run, Committed, 1, 2), op(Run, Aborted, 3, 4)}, true},
		{"flipped, though the calls overlap", []Op{op(Run, Committed, 1, 4), op(Run, Aborted, 2, 3)}, true},
		{"unknown, then committed", []Op{op(Run, Unknown, 1, 0), op(Run, Committed, 3, 4)}, false},
		{"unknown, then aborted", []Op{op(Run, Unknown, 1, 0), op(Run, Aborted, 3, 4)}, false},
		{"unknown takes effect late", []Op{op(Run, Unknown, 1, 0), op(Inquire, Undecided, 3, 4), op(Observe, Committed, 5, 6)}, false},
		{"lost", []Op{op(Run, Committed, 1, 2), op(Inquire, Undecided, 3, 4)}, true},
		{"undecided while it runs", []Op{op(Run, Committed, 1, 4), op(Inquire, Undecided, 2, 3)}, false},
		{"a node is behind", []Op{op(Run, Committed, 1, 2), op(Observe, Undecided, 3, 4)}, false},
		{"seen before it is told", []Op{op(Run, Committed, 1, 4), op(Observe, Committed, 2, 3)}, false},
		{"seen before anybody asked", []Op{op(Observe, Committed, 1, 2), op(Run, Committed, 3, 4)}, true},
		{"a participant did the other thing", []Op{op(Run, Aborted, 1, 4), op(Observe, Committed, 2, 3)}, true},
		{"an inquiry aborts", []Op{op(Inquire, Aborted, 1, 2), op(Run, Aborted, 3, 4)}, false},
		{"an inquiry aborted, and it ran all the same", []Op{op(Inquire, Aborted, 1, 2), op(Run, Committed, 3, 4)}, true},
		{"an inquiry commits nothing", []Op{op(Inquire, Committed, 1, 2)}, true},
		{"an abort commits nothing", []Op{op(Abort, Unknown, 1, 0), op(Observe, Committed, 3, 4)}, true},
		{"an unknown abort took effect", []Op{op(Abort, Unknown, 1, 0), op(Run, Aborted, 3, 4)}, false},
		{"nobody asked for this end", []Op{op(Observe, Aborted, 1, 2)}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			other := op(Run, Aborted, 1, 2)
			other.TxID = "t2" // another transaction's fate says nothing
			found := Judge(append([]Op{other}, tt.ops...))
			if wrong := len(found) == 1; wrong != tt.wrong || wrong && found[0].TxID != "t1" {
				t.Errorf("found %v, want a violation: %t", found, tt.wrong)
			}
		})
	}
}

// Many recorders' clients at once, with calls that overlap: a call that returned
// before another left is before it in the history.
func TestRecorder(t *testing.T) {
	r := NewRecorder()
	var clients sync.WaitGroup
	for n := range 8 {
		clients.Go(func() {
			for range 50 {
				r.Begin(n, Run, "t1")(Committed, "n1", "")
			}
		})
	}
	clients.Wait()
	r.Begin(9, Run, "t1")
	r.Begin(9, Run, "t1")(Unknown, "n2", "cut")
	r.Found(9, "t1", Committed, "bank")
	ops := r.Ops()
	if len(ops) != 403 || len(Judge(ops)) != 0 {
		t.Fatalf("%d calls, %v", len(ops), Judge(ops))
	}
	last := map[int]int64{}
	for _, o := range ops[:400] {
		if o.Call <= last[o.Client] || o.Return <= o.Call {
			t.Fatalf("%+v after a return at %d", o, last[o.Client])
		}
		last[o.Client] = o.Return
	}
	for _, o := range ops[400:402] {
		if o.Return != 0 || o.Answer != Unknown {
			t.Errorf("a call without an answer is %+v", o)
		}
	}
}

func TestWriteAndRead(t *testing.T) {
	r := NewRecorder()
	r.Begin(1, Run, "t1")(Committed, "n1", "said \"so\"\n")
	r.Begin(2, Inquire, "t2")
	var b bytes.Buffer
	if err := Write(&b, r.Ops()); err != nil {
		t.Fatal(err)
	}
	again, err := Read(&b)
	if err != nil || !reflect.DeepEqual(again, r.Ops()) {
		t.Errorf("%v: %v", again, err)
	}
	if _, err := Read(strings.NewReader("{}\n{")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("half a line: %v", err)
	}
}

func TestSave(t *testing.T) {
	ops := []Op{op(Run, Committed, 1, 2), op(Run, Aborted, 3, 4)}
	dir := filepath.Join(t.TempDir(), "found")
	if err := Save(dir, "go test -seed 7", ops, Judge(ops)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"replay.txt": "-seed 7", "history.jsonl": `"answer":"aborted"`, "t1.html": "committed"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v, and %q is not in it", name, err, want)
		}
	}
}
