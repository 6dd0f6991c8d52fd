package bench

import (
	"os"
	"testing"
	"time"
)

// What is proven here: the cost of a process is read as the kernel tells it.

func TestParseStat(t *testing.T) {
	// A command may be called anything, a closing parenthesis included.
	const stat = "71 (a) b (c) S 1 71 71 0 -1 4194560 900 0 0 0 150 50 7 8 20 0 9 0 300 1234567 10 18446744073709551615 1 1 0"
	cpu, rss, err := parseStat([]byte(stat))
	if err != nil || cpu != 2*time.Second || rss != 10*int64(os.Getpagesize()) {
		t.Errorf("cpu %s, rss %d, %v; want 2s and ten pages", cpu, rss, err)
	}
	for _, bad := range []string{"", "71 (decree", "71 (decree) S 1 2", "71 (decree) S 1 71 71 0 -1 0 0 0 0 0 x 50 7 8 20 0 9 0 300 1 10"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is a stat", bad)
		}
	}
}

func TestParseWritten(t *testing.T) {
	if got := parseWritten([]byte("rchar: 5\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n")); got != 4096 {
		t.Errorf("%d bytes", got)
	}
	if got := parseWritten(nil); got != 0 {
		t.Errorf("%d bytes where none are told", got)
	}
}

func TestOwnUsage(t *testing.T) {
	u, err := usageOf(os.Getpid())
	if err != nil || u.rss < 1<<20 {
		t.Errorf("%+v, %v: a Go process takes more than a megabyte", u, err)
	}
}
