package history

import (
	"bytes"
	"reflect"
	"testing"
)

// FuzzRead holds that a file is either refused or a history that is written and
// read again as the same one: what a run leaves behind for its judge is not changed
// by passing through.
func FuzzRead(f *testing.F) {
	r := NewRecorder()
	end := r.Begin(1, Run, "01890a5d-ac96-774b-bcce-b302099a8057")
	r.Begin(2, Inquire, "01890a5d-ac96-774b-bcce-b302099a8057") // never returns
	r.Found(3, "01890a5d-ac96-774b-bcce-b302099a8057", Committed, "n1")
	end(Committed, "n1", "a note\n")
	var recorded bytes.Buffer
	if err := Write(&recorded, r.Ops()); err != nil {
		f.Fatal(err)
	}
	f.Add(recorded.Bytes())
	f.Add(recorded.Bytes()[:recorded.Len()-2])
	f.Add([]byte(`{"client":-1,"kind":"","call":9223372036854775807,"at":1e3}`))
	f.Add([]byte("null\n{}[]"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, file []byte) {
		ops, err := Read(bytes.NewReader(file))
		if err != nil {
			return
		}
		var written bytes.Buffer
		if err := Write(&written, ops); err != nil {
			t.Fatal(err)
		}
		again, err := Read(&written)
		if err != nil || !reflect.DeepEqual(again, ops) {
			t.Fatalf("%v\n got %+v\nwant %+v", err, again, ops)
		}
	})
}
