package main

import (
	"os/exec"
	"strings"
	"testing"
)

// What is proven here: an application that imports the SDKs gets OpenTelemetry's
// interfaces, and neither its machinery nor that of metrics and of Raft.
func TestSDKsAreLight(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../../transport/client", "../../transport/branch").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), "go.opentelemetry.io/otel/trace") {
		t.Error("the SDKs do not know of spans")
	}
	for _, heavy := range []string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "github.com/prometheus/", "github.com/hashicorp/raft"} {
		if strings.Contains(string(out), heavy) {
			t.Errorf("the SDKs pull in %s", heavy)
		}
	}
}
