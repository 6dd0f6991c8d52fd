package main

import (
	"runtime"
	"runtime/debug"
)

// A node's memory is what it keeps, up to a million finished transactions, plus what
// the garbage collector lets it waste before it collects: as much again by default,
// which is too much of the large and, at some hundred megabytes of garbage a second,
// far too little of the small.
const (
	// collectAt is the waste in percent of what is kept and of the ballast.
	collectAt = 50
	// ballast is memory that nobody touches, so that it is never there: for the
	// collector alone it is. Half of it is what may be wasted whatever is kept.
	ballast = 128 << 20
)

// paceCollector sets the garbage collector's pace for a node, unless the environment
// says otherwise. What it returns gives the ballast back.
func paceCollector(lookup func(string) (string, bool)) (release func()) {
	for _, own := range []string{"GOGC", "GOMEMLIMIT"} {
		if _, ok := lookup(own); ok {
			return func() {}
		}
	}
	before := debug.SetGCPercent(collectAt)
	held := make([]byte, ballast)
	return func() {
		runtime.KeepAlive(held)
		debug.SetGCPercent(before)
	}
}
