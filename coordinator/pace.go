package coordinator

import "time"

// pace is how long something takes, lately; zero before it was first done.
type pace time.Duration

// note takes one more time into account, by an eighth.
func (p *pace) note(took time.Duration) {
	if *p == 0 {
		*p = pace(took)
		return
	}
	*p += (pace(took) - *p) / 8
}
