package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// What is proven here: whoever waits for more than a second is told what for, and
// nobody else is told anything.

func TestProgress(t *testing.T) {
	tests := []struct {
		name     string
		terminal bool
		takes    time.Duration
		want     string
	}{
		{"quick, in a log", false, time.Second - 1, ""},
		{"quick, on a terminal", true, time.Second - 1, ""},
		{"slow, in a log", false, 5 * time.Second, "decree: waiting (1s so far)\ndecree: waiting (2s so far)\ndecree: waiting (4s so far)\n"},
		{"slow, on a terminal", true, 1600 * time.Millisecond,
			"\r\x1b[Kwaiting (1s)\r\x1b[Kwaiting (1s).\r\x1b[Kwaiting (1s)..\r\x1b[K"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told lockedBuffer
				done := tellProgress(&told, tt.terminal, "waiting")
				time.Sleep(tt.takes)
				done()
				if got := told.String(); got != tt.want {
					t.Errorf("told %q\nwant %q", got, tt.want)
				}
			})
		})
	}
}
