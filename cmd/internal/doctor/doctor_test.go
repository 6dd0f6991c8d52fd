package doctor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/decree-tx/decree/cmd/internal/config"
)

// What is proven here: what is judged by a threshold is judged so on either side of it,
// and a peer's clock is measured over its Raft port.

func TestJudgeSyncs(t *testing.T) {
	even := func(d time.Duration) []time.Duration {
		all := make([]time.Duration, syncs)
		for i := range all {
			all[i] = d
		}
		return all
	}
	oneSlow := even(time.Millisecond)
	oneSlow[syncs-1] = time.Second // one in two hundred is beyond the p99
	for _, tt := range []struct {
		name string
		took []time.Duration
		want Result
	}{
		{"a good disk", even(500 * time.Microsecond), OK},
		{"one hiccup", oneSlow, OK},
		{"just good enough", even(slowSync - 1), OK},
		{"slow", even(slowSync), Warn},
		{"too slow", even(badSync), Fail},
		{"too good to be true", even(fakeSync - 1), Warn},
	} {
		if got, remedy := judgeSyncs(tt.took); got != tt.want || (got == OK) != (remedy == "") {
			t.Errorf("%s: %s (%s), want %s", tt.name, got, remedy, tt.want)
		}
	}
}

func TestTimeSyncs(t *testing.T) {
	dir := t.TempDir()
	took, err := timeSyncs(dir, (*os.File).Sync)
	if err != nil || len(took) == 0 || took[0] <= 0 || took[0] > took[len(took)-1] {
		t.Errorf("measured %v, %v", took, err)
	}
	broken := errors.New("input/output error")
	if _, err := timeSyncs(dir, func(*os.File) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a disk that cannot sync: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left %v behind", left)
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, tt := range []struct {
		of      []time.Duration
		percent int
		want    time.Duration
	}{{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100}, {hundred[:1], 50, 1}, {hundred[:1], 99, 1}, {hundred[:3], 50, 2}} {
		if got := percentile(tt.of, tt.percent); got != tt.want {
			t.Errorf("p%d of %d: %d, want %d", tt.percent, len(tt.of), got, tt.want)
		}
	}
}

func TestJudgeClock(t *testing.T) {
	for _, tt := range []struct {
		ahead, give time.Duration
		want        Result
	}{
		{0, 0, OK},
		{offClock, 0, OK},
		{offClock + 1, 0, Warn},
		{-offClock - 1, 0, Warn},
		{3 * time.Second, 2 * time.Second, OK}, // it may be within bounds
		{badClock + 1, 0, Fail},
		{-badClock - 1, 0, Fail},
	} {
		if got, _ := judgeClock(tt.ahead, tt.give); got != tt.want {
			t.Errorf("%s ahead, give or take %s: %s, want %s", tt.ahead, tt.give, got, tt.want)
		}
	}
}

// TestClockOfAPeer greets a peer whose clock is ten minutes ahead, over TCP.
func TestClockOfAPeer(t *testing.T) {
	const ahead = 10 * time.Minute
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(conn, make([]byte, 1+4)) // the kind and the length
			body, _ := json.Marshal(map[string]any{
				"version": 1, "id": "n2", "incarnation": "x", "phase": "empty", "clock": time.Now().Add(ahead).UnixNano(),
			})
			_, _ = conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
			conn.Close()
		}
	}()
	var found []Finding
	cfg := config.Default()
	cfg.NodeID, cfg.Peers = "n1", config.Peers{{ID: "n1", Addr: "127.0.0.1:1"}, {ID: "n2", Addr: l.Addr().String()}}
	e := &exam{Patient: Patient{Config: cfg}, tell: func(f Finding) { found = append(found, f) }, began: time.Now()}
	e.peers(t.Context())
	e.clocks()
	if len(found) != 3 || found[1].Result != Fail || !strings.Contains(found[1].Measured, "10m0s ahead of this one, give or take ") {
		t.Errorf("found %+v", found)
	}
}

// TestClockThatIsSet looks at a clock that was set while it was looked at.
func TestClockThatIsSet(t *testing.T) {
	const looked = 3 * time.Second
	for moved, want := range map[time.Duration]Result{0: OK, time.Second: Warn, -time.Second: Warn} {
		var found []Finding
		e := &exam{tell: func(f Finding) { found = append(found, f) }}
		e.steadyBy(looked+moved, looked)
		if found[0].Result != want {
			t.Errorf("set by %s: %+v, want %s", moved, found[0], want)
		}
	}
}
