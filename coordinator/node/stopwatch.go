package node

import "time"

// stopwatch measures the time that passes, the time in which the machine was asleep
// included: the monotonic clock stands still then, and a leader that woke up after a
// night would refuse every new txid as one from the future.
type stopwatch struct {
	asleep func() time.Duration // in all, since the machine was started
	began  time.Time
	before time.Duration // asleep until then
}

func startWatch(asleep func() time.Duration) stopwatch {
	return stopwatch{asleep: asleep, began: time.Now(), before: asleep()}
}

func (s stopwatch) elapsed() time.Duration { return time.Since(s.began) + s.asleep() - s.before }
