package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/cmd/internal/logs"
	"github.com/decree-tx/decree/cmd/internal/operator"
)

// What is proven here: a running process's log levels are seen and changed from the
// command line, and what is wrong is said.

func TestLogLevel(t *testing.T) {
	log, levels := logs.New(io.Discard, hclog.Info, false)
	raft := log.Named("raft")
	s, err := operator.Listen("127.0.0.1:0", operator.Config{Levels: levels})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := s.Addr().String()
	for _, tt := range []struct {
		args []string
		exit int
		want string
	}{
		{[]string{"--operator", at}, exitOK, "decree.raft  info   inherited"},
		{[]string{"--operator", at, "debug", "--logger", "raft"}, exitOK, "decree.raft  debug"},
		{[]string{"--operator", at, "-o", "json"}, exitOK, `{"logger":"decree.raft","level":"debug","own":true}`},
		{[]string{"--operator", at, "loud"}, exitUsage, "want trace, debug"},
		{[]string{"--operator", at, "debug", "--logger", "nobody"}, exitUsage, "there are decree, decree.raft"},
		{[]string{"--operator", at, "--logger", "raft"}, exitUsage, "--logger without a level"},
		{[]string{"--operator", unusedAddress(t)}, exitFailed, "start it with --operator-addr"},
	} {
		var stdout, stderr bytes.Buffer
		exit := Run(t.Context(), append([]string{"log-level"}, tt.args...), strings.NewReader(""), &stdout, &stderr)
		if got := stdout.String() + stderr.String(); exit != tt.exit || !strings.Contains(got, tt.want) {
			t.Errorf("%q: exit %d, want %d, with %q in:\n%s", tt.args, exit, tt.exit, tt.want, got)
		}
	}
	if !raft.IsDebug() || log.IsDebug() {
		t.Error("the level does not hold")
	}
}
