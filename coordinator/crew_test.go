package coordinator

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// No job waits for another one, goroutines stay for the next jobs up to a bound, and
// none outlives the term (rules R3 and R14).
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var work sync.WaitGroup
		ended := make(chan struct{})
		c := newCrew(&work, ended)
		const jobs = maxIdle + 100
		var under sync.WaitGroup // would wait for ever if a job waited for another
		under.Add(jobs)
		for range jobs {
			c.run(func() {
				under.Done()
				under.Wait()
			})
		}
		synctest.Wait()
		if n := len(c.idle); n != maxIdle {
			t.Errorf("%d goroutines stay, want %d", n, maxIdle)
		}
		done := false
		c.run(func() { done = true })
		synctest.Wait()
		if n := len(c.idle); !done || n != maxIdle {
			t.Errorf("a later job is done: %t, by one of %d that stay", done, n)
		}
		close(ended)
		work.Wait()
	})
}

// Contexts last their length at least, and those of one moment are one.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(t.Context())
		p := &patience{parent: parent, length: 16 * time.Second}
		start := time.Now()
		first := p.at(start)
		if p.at(start.Add(time.Second)) != first {
			t.Error("two contexts within a sixteenth of their length")
		}
		second := p.at(start.Add(time.Second + 1))
		if second == first {
			t.Error("a context is given out too late")
		}
		synctest.Wait()
		<-first.Done()
		if time.Since(start) != 17*time.Second || second.Err() != nil {
			t.Errorf("the first ended after %s, want 17s, and the second: %v", time.Since(start), second.Err())
		}
		cancel()
		if second.Err() == nil {
			t.Error("a context outlives the leadership")
		}
	})
}
