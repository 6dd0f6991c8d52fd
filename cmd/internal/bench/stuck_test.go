package bench

import (
	"bytes"
	"runtime/pprof"
	"testing"
)

// What is proven here: the live heap is read out of a real profile.

func TestHeapAlloc(t *testing.T) {
	var profile bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&profile, 1); err != nil {
		t.Fatal(err)
	}
	if n, err := heapAlloc(profile.String()); err != nil || n < 1<<16 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := heapAlloc("# Alloc = 5\n"); err == nil {
		t.Error("a profile without HeapAlloc has one")
	}
}
