package cluster

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// allocated is how many bytes f allocates, whether or not they are freed.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

func frame(length uint32, body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, length), body...)
}

// FuzzHello holds that whatever a stranger sends to the port, reading it takes no
// more memory than a frame and what JSON can make of one, whatever length it claims;
// and that what is read as a question or an answer is sent and read again as the
// same.
func FuzzHello(f *testing.F) {
	for _, v := range []any{
		question{Version: 1, ID: "n1", Incarnation: "x", Admit: &admit{ID: "n2", Incarnation: "y"}},
		answer{Version: 1, ID: "n1", Phase: phaseMember, Founders: []founder{{"n1", "a:1", "x"}}, Members: []Member{{Peer: Peer{"n1", "a:1"}, Voter: true}}, Term: 7},
	} {
		var b bytes.Buffer
		if err := writeFrame(&b, v); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{})
	f.Add(frame(math.MaxUint32, "{}"))
	f.Add(frame(maxHello, "{}"))
	f.Add(frame(maxHello+1, "{}"))
	f.Add(frame(4, "null"))
	f.Add(frame(20000, strings.Repeat("[", 20000)))
	many := `{"founders":[{}` + strings.Repeat(",{}", 20000) + `]}`
	f.Add(frame(uint32(len(many)), many))
	f.Fuzz(func(t *testing.T, sent []byte) {
		var q question
		var a answer
		var qErr, aErr error
		n := allocated(func() {
			qErr = readFrame(bytes.NewReader(sent), &q)
			aErr = readFrame(bytes.NewReader(sent), &a)
		})
		// {} and a comma, three bytes, become a founder or a member of some fifty,
		// several times over while the list grows.
		if n > 2*maxHello+256*len(sent)+64<<10 {
			t.Fatalf("%d bytes of memory for %d that were sent", n, len(sent))
		}
		if qErr == nil {
			mustTravel(t, q)
		}
		if aErr == nil {
			mustTravel(t, a)
		}
	})
}

func mustTravel[T any](t *testing.T, v T) {
	t.Helper()
	var b bytes.Buffer
	if err := writeFrame(&b, v); err != nil {
		if body, _ := json.Marshal(v); len(body) > maxHello {
			return // escapes and zero fields made it longer than it came
		}
		t.Fatal(err)
	}
	sent := b.String()
	var back, again T
	if err := readFrame(&b, &back); err != nil {
		t.Fatal(err)
	}
	if err := writeFrame(&b, back); err != nil || b.String() != sent {
		t.Fatalf("%v\nsent %s\nback %s", err, sent, b.String())
	}
	// An empty list arrives as none.
	if err := readFrame(strings.NewReader(sent), &again); err != nil || !reflect.DeepEqual(back, again) {
		t.Fatalf("%v: %+v and %+v", err, back, again)
	}
}

// FuzzIdentity holds that a node.json is either refused as what it is, corrupt or
// another node's, or names this node, a disk and a phase; and that what was read is
// written and read again as the same. A disk that is misread could vote twice (R15).
func FuzzIdentity(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"id":"n1","incarnation":"x","phase":"member","founders":[{"id":"n1","raft_address":"a:1","incarnation":"x"}]}`,
		`{"version":1,"id":"n1","incarnation":"x","phase":"empty"}`,
		`{"version":1,"id":"n2","incarnation":"x","phase":"empty"}`,
		`{"id":"n1","incarnation":"x","phase":"empty"}`,
		`{"version":2,"id":"n1","incarnation":"x","phase":"empty"}`,
		`{"version":1,"id":"n1","incarnation":"x","phase":"Member"}`,
		`{"version":1,"id":"n1","incarnation":"x","phase":"empty"}{}`,
		`{"version":1,"id":"n1","id":"n2","incarnation":"x","phase":"removed","disk":1}`,
		`{}`, `null`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		me, err := parseIdentity(raw, "d", "n1")
		if err != nil {
			if !errors.Is(err, ErrCorruptDir) && !errors.Is(err, ErrForeignDir) || !reflect.DeepEqual(me, identity{}) {
				t.Fatalf("refused with %v as %+v", err, me)
			}
			return
		}
		if me.ID != "n1" || me.Incarnation == "" || me.Phase.order() < 0 || me.Version < 1 || me.Version > identityVersion {
			t.Fatalf("read as %+v", me)
		}
		written, err := json.Marshal(me)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseIdentity(written, "d", "n1")
		if err != nil || again.Phase != me.Phase || again.Incarnation != me.Incarnation || !samePeers(again.Founders, me.Founders) {
			t.Fatalf("%v\n got %+v\nwant %+v", err, again, me)
		}
	})
}
