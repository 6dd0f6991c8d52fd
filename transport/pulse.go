package transport

import "time"

// Pulse is what a node decided as leader in the last seconds, from the histograms that
// its monitoring reads.
type Pulse struct {
	Window       time.Duration // what the figures span; 0 where there are none yet
	Transactions uint64        // decided in it
	PerSecond    float64
	// P50 and P99 estimate the time from admission to the applied decision.
	P50, P99   time.Duration
	AbortShare float64 // 0 to 1
}
