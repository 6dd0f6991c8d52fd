package bench

import (
	"strings"
	"testing"
	"time"
)

// What is proven here: people read figures to the digits that mean something.

func TestMicros(t *testing.T) {
	for us, want := range map[int64]string{
		0: "0s", 7: "7µs", 999: "999µs", 1234: "1.23ms", 12345: "12.3ms", 123456: "123ms", 1234567: "1.23s", 12345678: "12.3s",
	} {
		if got := Micros(us); got != want {
			t.Errorf("%d: %s, want %s", us, got, want)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 999.4: "999", 1000: "1,000", 1234567.8: "1,234,568", -1000: "-1,000"} {
		if got := Thousands(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
}

func TestLiveLine(t *testing.T) {
	c := newCounted()
	c.answers = [answers]uint64{committed: 1990, aborted: 10, failed: 3}
	c.shed = 4
	got := liveLine(3*time.Second, 2*time.Second, c, 64, "warming up")
	for _, want := range []string{"1,000 tx/s", "in flight 64", "aborted 10", "failed 3", "shed 4", "(warming up)"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}
