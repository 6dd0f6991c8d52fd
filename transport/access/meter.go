package access

import (
	"fmt"
	"sync"
	"time"

	"github.com/decree-tx/decree/transport/certs"
)

// inFlightDelay is when somebody with too many calls under way may try again: one of
// them will have been answered.
const inFlightDelay = 100 * time.Millisecond

// Meters count what each identity asks of this node, and hold it to its limits.
type Meters struct {
	file     *File  // set once; may be nil
	defaults Limits // set once; of identities without limits of their own

	mu  sync.RWMutex
	all map[certs.Identity]*meter // guarded by mu; as many as identities have called
}

// NewMeters makes them.
func NewMeters(file *File, defaults Limits) *Meters {
	return &Meters{file: file, defaults: defaults, all: make(map[certs.Identity]*meter)}
}

// Pass is the right to one call. Give it back with Leave when the call has ended. The
// zero Pass is of a call that nobody counts.
type Pass struct{ m *meter }

// OverError refuses a call that is one too many.
type OverError struct {
	What       string
	RetryAfter time.Duration
}

func (e *OverError) Error() string { return fmt.Sprintf("%s: try again in %s", e.What, e.RetryAfter) }

// Enter admits a call, or refuses it with an [OverError].
func (ms *Meters) Enter(who certs.Identity) (Pass, error) {
	limits, own := ms.file.Limits(who)
	if !own {
		limits = ms.defaults
	}
	if limits == (Limits{}) {
		return Pass{}, nil
	}
	m := ms.meter(who)
	if err := m.enter(who, limits, time.Now()); err != nil {
		return Pass{}, err
	}
	return Pass{m}, nil
}

// Leave ends the call.
func (p *Pass) Leave() {
	if p.m != nil {
		p.m.mu.Lock()
		p.m.inFlight--
		p.m.mu.Unlock()
		p.m = nil
	}
}

func (ms *Meters) meter(who certs.Identity) *meter {
	ms.mu.RLock()
	m := ms.all[who]
	ms.mu.RUnlock()
	if m != nil {
		return m
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m = ms.all[who]; m == nil {
		m = &meter{}
		ms.all[who] = m
	}
	return m
}

// meter is one identity's: a bucket from which calls take tokens, and which fills at its
// rate.
type meter struct {
	mu       sync.Mutex
	inFlight int       // guarded by mu
	taken    float64   // out of the bucket; guarded by mu
	at       time.Time // when that was so; guarded by mu
}

func (m *meter) enter(who certs.Identity, l Limits, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.InFlight > 0 && m.inFlight >= l.InFlight {
		return &OverError{fmt.Sprintf("%s has %d calls under way at this node, as many as it may", who, m.inFlight), inFlightDelay}
	}
	if l.Rate > 0 {
		size := max(float64(l.Burst), 1)
		if l.Burst == 0 {
			size = max(l.Rate, 1)
		}
		m.taken = max(0, m.taken-now.Sub(m.at).Seconds()*l.Rate)
		m.at = now
		if over := m.taken + 1 - size; over > 0 {
			wait := time.Duration(over / l.Rate * float64(time.Second))
			return &OverError{fmt.Sprintf("%s may make %g calls a second at this node", who, l.Rate), max(wait, time.Millisecond)}
		}
		m.taken++
	}
	m.inFlight++
	return nil
}
