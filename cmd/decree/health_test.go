package main

import (
	"strings"
	"testing"
)

// What is proven here: the health check of containers ends with 0 for a node that
// serves and for no other, and needs nothing but an address.

func TestHealth(t *testing.T) {
	node := newLone(t)
	check := []string{"health", "--patience", "2s", "--endpoints", node.grpc}
	if got := run(t, nil, "", check...); got.exit == exitOK || !strings.Contains(got.stderr, node.grpc) {
		t.Errorf("where nobody listens: exit %d, %s", got.exit, got.stderr)
	}
	r := node.startAndLead(t)
	if got := run(t, nil, "", check...); got.exit != exitOK || got.stdout != node.grpc+" serves\n" {
		t.Errorf("exit %d, %s%s", got.exit, got.stdout, got.stderr)
	}
	if got := run(t, nil, "", append(check, "-o", "json")...); got.stdout != `{"endpoint":"`+node.grpc+`","serving":true}`+"\n" {
		t.Error(got.stdout)
	}
	both := []string{"health", "--patience", "2s", "--endpoints", node.grpc + "," + node.http}
	if got := run(t, nil, "", both...); got.exit == exitOK || !strings.Contains(got.stdout, node.grpc) || !strings.Contains(got.stderr, node.http) {
		t.Errorf("exit %d, %s%s", got.exit, got.stdout, got.stderr)
	}
	r.end()
}
