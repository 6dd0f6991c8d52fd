//go:build !linux

package node

import "time"

// asleep is not known here: after the machine has slept, cluster time is behind until
// the node is started again.
func asleep() time.Duration { return 0 }
