package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	// progressAfter is when people begin to wonder.
	progressAfter = time.Second
	// progressEvery is how often a terminal is told: often enough to look alive.
	progressEvery = 250 * time.Millisecond
)

// progress tells on stderr what goes on, from a second on, until the func it returns is
// called or a result is written: in one line that changes and goes, on a terminal; elsewhere in a line now
// and then. Programs that asked for JSON are told nothing.
func (p *program) progress(what string) (done func()) {
	terminal := isTerminal(p.stderr)
	if p.out.format == formatJSON && !terminal {
		return func() {}
	}
	done = sync.OnceFunc(tellProgress(p.stderr, terminal, what))
	p.out.first = done // what is written must not stand in that line
	return done
}

func tellProgress(w io.Writer, terminal bool, what string) (done func()) {
	ended := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		if terminal {
			redrawProgress(w, what, ended)
		} else {
			logProgress(w, what, ended)
		}
	})
	return func() {
		close(ended)
		telling.Wait()
	}
}

// redrawProgress keeps one line of a terminal up to date.
func redrawProgress(w io.Writer, what string, ended <-chan struct{}) {
	start, wait := time.Now(), progressAfter
	drawn := false
	for {
		select {
		case <-ended:
			if drawn {
				fmt.Fprint(w, clearLine)
			}
			return
		case <-time.After(wait):
			so := time.Since(start)
			dots := strings.Repeat(".", int(so/progressEvery)%4)
			fmt.Fprintf(w, "%s%s (%s)%s", clearLine, what, so.Truncate(time.Second), dots)
			drawn, wait = true, progressEvery
		}
	}
}

// clearLine goes to the line's begin and clears it.
const clearLine = "\r\x1b[K"

func logProgress(w io.Writer, what string, ended <-chan struct{}) {
	start, wait := time.Now(), progressAfter
	for {
		select {
		case <-ended:
			return
		case <-time.After(wait):
			fmt.Fprintf(w, "decree: %s (%s so far)\n", what, time.Since(start).Truncate(time.Second))
			wait = time.Since(start) // each line after twice the time of the last
		}
	}
}
