package node

import (
	"time"

	"golang.org/x/sys/unix"
)

// asleep is how long the machine was suspended since it was started. The two clocks
// are read one after the other, so that it is right to some microseconds.
func asleep() time.Duration {
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
		return 0
	}
	return max(0, time.Duration(boot.Nano()-mono.Nano()))
}
