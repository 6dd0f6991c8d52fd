package coordinator

// milestone is passed once in the life of a drive. Only who waits for it makes a
// channel, because most milestones pass with nobody waiting. It is guarded by
// term.mu.
type milestone struct {
	reached bool
	passed  chan struct{} // nil until somebody waits
	woken   bool          // passed is closed, or need not be made
}

// reach marks the milestone and wakes those who wait, once.
func (m *milestone) reach() {
	m.reached = true
	m.wake()
}

// wake tells those who wait, now or later, to wait no longer.
func (m *milestone) wake() {
	if m.passed != nil && !m.woken {
		close(m.passed)
	}
	m.woken = true
}

// wait returns a channel that is closed when the milestone is reached or never will
// be.
func (m *milestone) wait() <-chan struct{} {
	if m.passed == nil {
		m.passed = make(chan struct{})
		if m.woken {
			close(m.passed)
		}
	}
	return m.passed
}
