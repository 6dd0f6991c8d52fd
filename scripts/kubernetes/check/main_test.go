package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is proven here: the manifests pass, and what is wrong with them would be found.

func TestManifests(t *testing.T) {
	manifests, err := os.ReadFile("../decree.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, mistake := range []struct{ name, from, to, want string }{
		{"none", "", "", ""},
		{"a field that there is not", "minReadySeconds:", "minimumReadySeconds:", "unknown field"},
		{"another type", "replicas: 3", "replicas: three", "cannot unmarshal"},
		{"a field given twice", "replicas: 3", "replicas: 3\n  replicas: 5", "already set"},
		{"a port that the pods lack", "{name: http, containerPort: 7201}", "{name: web, containerPort: 7201}", "no port http"},
		{"a budget for other pods", "maxUnavailable: 1\n  selector: {matchLabels: {app.kubernetes.io/name: decree}}",
			"maxUnavailable: 1\n  selector: {matchLabels: {app.kubernetes.io/name: degree}}", "does not select"},
		{"no names for the nodes", "clusterIP: None", "clusterIP: \"\"", "no headless Service"},
		{"another kind", "kind: ServiceAccount", "kind: Account", "not a kind"},
	} {
		t.Run(mistake.name, func(t *testing.T) {
			content := string(manifests)
			if mistake.from != "" && !strings.Contains(content, mistake.from) {
				t.Fatalf("%q is not in the manifests", mistake.from)
			}
			path := filepath.Join(t.TempDir(), "decree.yaml")
			if err := os.WriteFile(path, []byte(strings.Replace(content, mistake.from, mistake.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			objects, err := readFile(path)
			if err == nil {
				err = joined(objects)
			}
			if (err == nil) != (mistake.want == "") || err != nil && !strings.Contains(err.Error(), mistake.want) {
				t.Errorf("got %v, want %q", err, mistake.want)
			}
		})
	}
}
