package main

// What is proven here: the configuration that packages bring is one that a node would
// start with, up to what the reader has to fill in.

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func readYAML(t *testing.T, out any, path ...string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, out); err != nil {
		t.Fatal(err)
	}
}

// checked runs config check over a node's settings.
func checked(t *testing.T, env map[string]string, args ...string) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	if got := run(t, nil, "", append([]string{"config", "check"}, args...)...); got.exit != exitOK {
		t.Errorf("%v %v:\n%s", env, args, got.stderr)
	}
}

// imageSetting is in the image's environment.
var imageSetting = regexp.MustCompile(`(?m)^ENV (DECREE_\w+)=(\S+)$`)

func TestComposeConfiguration(t *testing.T) {
	dockerfile, err := os.ReadFile(filepath.Join("..", "..", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	image := map[string]string{}
	for _, m := range imageSetting.FindAllStringSubmatch(string(dockerfile), -1) {
		image[m[1]] = m[2]
	}
	var compose struct {
		Services map[string]struct {
			Environment map[string]string
			Volumes     []string
			Command     []string
		}
		Volumes map[string]any
	}
	readYAML(t, &compose, "compose.yaml")
	nodes := 0
	for _, name := range slices.Sorted(maps.Keys(compose.Services)) {
		service := compose.Services[name]
		t.Run(name, func(t *testing.T) {
			for _, v := range service.Volumes {
				if volume, _, _ := strings.Cut(v, ":"); compose.Volumes[volume] != nil || !slices.Contains(slices.Collect(maps.Keys(compose.Volumes)), volume) {
					t.Errorf("volume %s is not declared", volume)
				}
			}
			if len(service.Command) > 0 {
				return
			}
			nodes++
			if service.Environment["DECREE_NODE_ID"] != name {
				t.Errorf("node %q is the service %s", service.Environment["DECREE_NODE_ID"], name)
			}
			env := maps.Clone(image)
			maps.Copy(env, service.Environment)
			checked(t, env)
		})
	}
	if nodes != 3 {
		t.Errorf("%d nodes", nodes)
	}
}

func TestSystemdConfiguration(t *testing.T) {
	checked(t, nil, filepath.Join("..", "..", "scripts", "systemd", "decree.yaml"))
}

func TestKubernetesConfiguration(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "scripts", "kubernetes", "decree.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file string
	var args []string
	documents := yaml.NewDecoder(strings.NewReader(string(content)))
	for {
		var object struct {
			Kind string
			Data map[string]string
			Spec struct {
				Template struct {
					Spec struct{ Containers []struct{ Args []string } }
				}
			}
		}
		if err := documents.Decode(&object); err != nil {
			break
		}
		switch object.Kind {
		case "ConfigMap":
			file = filepath.Join(t.TempDir(), "decree.yaml")
			if err := os.WriteFile(file, []byte(object.Data["decree.yaml"]), 0o600); err != nil {
				t.Fatal(err)
			}
		case "StatefulSet":
			args = object.Spec.Template.Spec.Containers[0].Args
		}
	}
	if file == "" || len(args) < 2 || args[0] != "server" {
		t.Fatalf("file %q, args %q", file, args)
	}
	for i, a := range args {
		a = strings.ReplaceAll(a, "$(POD_NAME)", "decree-1")
		args[i] = strings.Replace(a, "/etc/decree/decree.yaml", file, 1)
	}
	checked(t, nil, args[1:]...)
}
