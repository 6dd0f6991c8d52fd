package postgres

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// alarmEvery is how often the same alarm is raised: each call meets its cause.
const alarmEvery = time.Minute

// alarm logs what an operator has to change, and not for each call again.
type alarm struct {
	log hclog.Logger // set once

	mu   sync.Mutex // guards what follows
	last string
	at   time.Time
}

func (a *alarm) raise(what string, details ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, text := time.Now(), what+fmt.Sprint(details...)
	if text == a.last && now.Sub(a.at) < alarmEvery {
		return
	}
	a.last, a.at = text, now
	a.log.Error(what, details...)
}
