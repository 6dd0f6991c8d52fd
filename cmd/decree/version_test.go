package main

import (
	"strings"
	"testing"

	decreev1 "github.com/decree-tx/decree/transport/api/decree/v1"
)

// TestMixedVersions asks nodes of two versions: people are warned, programs are told.
func TestMixedVersions(t *testing.T) {
	endpoint := func(node, version string) string {
		return (&fakeNode{status: &decreev1.StatusResponse{Node: node, Version: version}}).serve(t)
	}
	one, two, same := endpoint("n1", "v1.2.0"), endpoint("n2", "v1.3.0"), endpoint("n3", "v1.2.0")
	for _, tt := range []struct {
		endpoints string
		mixed     bool
	}{{one + "," + two, true}, {one + "," + same, false}} {
		got := run(t, nil, "", "version", "--endpoints", tt.endpoints)
		if got.exit != exitOK || strings.Contains(got.stderr, "different versions") != tt.mixed {
			t.Errorf("mixed %v: exit %d, stderr %q", tt.mixed, got.exit, got.stderr)
		}
		inJSON := run(t, nil, "", "version", "--endpoints", tt.endpoints, "-o", "json")
		if strings.Contains(inJSON.stdout, `"mixed":true`) != tt.mixed {
			t.Errorf("mixed %v: %s", tt.mixed, inJSON.stdout)
		}
	}
}
