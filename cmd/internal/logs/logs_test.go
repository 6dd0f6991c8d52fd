package logs

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// What is proven here: a level that changes holds at once, for loggers that are there
// already and for those that come, and for what lies below in the tree of names.

func TestLevelsChangeWhileLoggersAreInUse(t *testing.T) {
	var out bytes.Buffer
	log, levels := New(&out, hclog.Info, false)
	raft, epoch := log.Named("raft"), log.Named("coordinator").With("epoch", 3)
	deep := raft.Named("snapshot")
	wants := func(want ...string) {
		t.Helper()
		for _, l := range []hclog.Logger{log, raft, deep, epoch} {
			l.Debug("is shown")
		}
		got := strings.Count(out.String(), "is shown")
		for _, name := range want {
			if !strings.Contains(out.String(), name+": is shown") {
				t.Errorf("%s is silent in:\n%s", name, out.String())
			}
		}
		if got != len(want) {
			t.Errorf("%d lines, want %d:\n%s", got, len(want), out.String())
		}
		out.Reset()
	}
	set := func(name, level string) {
		t.Helper()
		if err := levels.Set(name, level); err != nil {
			t.Fatal(err)
		}
	}
	wants()
	set("raft", "debug")
	wants("decree.raft", "decree.raft.snapshot")
	set("decree.raft.snapshot", "warn")
	wants("decree.raft")
	set("", "trace")
	wants("decree", "decree.raft", "decree.coordinator")
	set("raft", "inherit")
	set("", "error")
	wants()
	set("coordinator", "debug")
	wants("decree.coordinator")
	if late := log.Named("coordinator"); !late.IsDebug() || late.IsTrace() || late.GetLevel() != hclog.Debug {
		t.Errorf("a logger that came later is at %s", late.GetLevel())
	}
	epoch.Error("told", "txid", "t1")
	if got := out.String(); !strings.Contains(got, "epoch=3 txid=t1") {
		t.Errorf("the fields are lost: %s", got)
	}
}

func TestWrongLevels(t *testing.T) {
	log, levels := New(&bytes.Buffer{}, hclog.Info, true)
	log.Named("raft")
	for _, tt := range []struct{ name, level, want string }{
		{"", "loud", `level "loud": want trace, debug`},
		{"", "inherit", "nothing is above decree"},
		{"wal", "debug", `no logger "decree.wal"; there are decree, decree.raft`},
	} {
		if err := levels.Set(tt.name, tt.level); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s to %s: %v, want %q", tt.name, tt.level, err, tt.want)
		}
	}
	if got := levels.All(); len(got) != 2 || got[1] != (Level{"decree.raft", "info", false}) {
		t.Errorf("%+v", got)
	}
}
