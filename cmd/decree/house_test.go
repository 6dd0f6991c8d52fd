package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What is proven here: the house stands as it was drawn. Imports between our
// packages go one way, by a table, and the top of the tree holds what it should
// and nothing else. The imports are read from the files, whatever their build
// tags, because the go command caches what it lists.

const module = "github.com/decree-tx/decree"

// A room is one row of the import table: which packages, and what of ours they
// may import. Patterns are paths below the module; "/..." takes a tree, and a "*"
// one path element. The first row that matches a package counts.
type room struct {
	packages string
	imports  string // separated by spaces
}

var house = []room{
	// Servers and clients find a transaction's group alike.
	{"fsm/group", ""},
	{"fsm/txn", "fsm/group"},
	{"fsm/fsmpb", ""},
	{"cluster", ""},
	// The service's end of a stream of calls, for every kind of server.
	{"transport/api/decree/participant/callmany", "transport/api/decree/participant/v1"},
	{"transport/api/decree/submitmany", "transport/api/decree/v1"},
	{"transport/api/...", ""},
	{"fsm", "fsm/txn fsm/group fsm/fsmpb"},
	{"participants", "fsm/txn"},
	{"participants/marker", "fsm/txn"},
	// What both SQL drivers take from clients: one language, no dialect.
	{"participants/statements", ""},
	{"participants/postgres", "participants participants/marker participants/statements fsm/txn"},
	{"participants/mysql", "participants participants/marker participants/statements fsm/txn"},
	// Commands start throwaway servers too.
	{"participants/participanttest/databases", ""},
	// It holds both ends of the wire.
	{"participants/grpc", "participants fsm/txn transport/api/decree/participant/..."},
	{"participants/*", "participants fsm/txn"},
	{"coordinator", "fsm/txn participants"},
	{"coordinator/node", "coordinator cluster fsm fsm/txn fsm/group participants"},
	{"cluster/clustertest", "cluster"},
	// One format for what the simulation, the chaos and the bank saw.
	{"coordinator/history", ""},
	{"coordinator/sim", "coordinator/history coordinator/node coordinator cluster cluster/clustertest fsm fsm/txn participants participants/participanttest"},
	{"transport", "coordinator cluster fsm fsm/txn participants transport/api/... transport/certs transport/access transport/loopback fsm/group"},
	// Nodes and applications prove who they are alike.
	{"transport/certs", ""},
	{"transport/access", "transport/certs"},
	{"transport/client", "transport/api/... transport/certs fsm/group"},
	{"transport/branch", "transport/api/..."},
	{"transport/branch/decreepg", "transport/branch transport/api/... participants/marker"},
	{"transport/branch/decreesql", "transport/branch transport/api/... participants/marker"},
	{"transport/loopback", ""},
	{"transport/web", ""},
	// Load, bank and chaos reach a cluster as a user would.
	{"cmd/internal/bank", "cmd/internal/papers transport/client transport/branch transport/api/... participants participants/kv participants/marker participants/statements fsm/txn coordinator/history"},
	{"cmd/internal/bankday", "transport/client transport/api/... participants/participanttest/databases coordinator/history cmd/internal/bank cmd/internal/fleet cmd/internal/faults cmd/internal/papers"},
	{"cmd/internal/demo", "transport/client transport/api/... participants cmd/internal/bank"},
	{"cmd/internal/fleet", ""},
	{"cmd/internal/papers", "transport/certs transport/client"},
	{"cmd/internal/bench", "transport/client transport/api/... cmd/internal/..."},
	{"cmd/internal/faults", "cmd/internal/fleet"},
	{"cmd/internal/chaos", "transport/client transport/api/... participants/kv coordinator/history cmd/internal/..."},
	{"cmd/...", "..."},
}

// standardOnly is the package whose imports may not even leave the standard
// library.
const standardOnly = "fsm/txn"

// The top of the tree: the directories that must be there, and the files that
// may. Names with a leading dot are free. The rest is what a build leaves.
var (
	topDirs    = []string{"cluster", "cmd", "coordinator", "fsm", "participants", "scripts", "transport"}
	topFiles   = []string{"CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile", "Makefile", "README.md", "compose.yaml", "go.mod", "go.sum"}
	topOutputs = []string{"bin", "data", "*.test", "*.prof"}
)

func TestHouse(t *testing.T) {
	root := os.DirFS(filepath.Join("..", ".."))
	for _, complaint := range append(checkImports(t, root), checkTop(t, root)...) {
		t.Error(complaint)
	}
}

// TestHouseCheckerComplains breaks each rule in a synthetic tree, so that
// TestHouse cannot pass because the checker is blind.
func TestHouseCheckerComplains(t *testing.T) {
	file := func(imports ...string) string {
		var b strings.Builder
		b.WriteString("package x\n")
		for _, i := range imports {
			fmt.Fprintf(&b, "import _ %q\n", i)
		}
		return b.String()
	}
	tests := []struct {
		name, path, content string
		want                string // in the one complaint; empty for none
	}{
		{"an allowed import", "fsm/a.go", file("fmt", module+"/fsm/txn", "github.com/hashicorp/raft"), ""},
		{"cluster knows the state machine", "cluster/a.go", file(module + "/fsm"), "cluster may not import fsm"},
		{"behind a build tag", "cluster/a.go", "//go:build never\n\n" + file(module+"/fsm"), "cluster may not import fsm"},
		{"tests are free", "cluster/a_test.go", file(module + "/fsm"), ""},
		{"the SDK pulls in the server", "transport/client/a.go", file(module + "/transport"), "transport/client may not import transport"},
		{"a tree is not its parent", "transport/client/a.go", file(module + "/transport/api/decree/v1"), ""},
		{"a driver uses another", "participants/kv/a.go", file(module + "/participants/sim"), "participants/kv may not import participants/sim"},
		{"the bank goes round the SDK", "cmd/internal/bank/a.go", file(module + "/coordinator"), "cmd/internal/bank may not import coordinator"},
		{"commands join everything", "cmd/decree/a.go", file(module+"/coordinator/node", module+"/participants/kv"), ""},
		{"a package without a room", "coordinator/extra/a.go", file("fmt"), "coordinator/extra has no row"},
		{"the core leaves the standard library", "fsm/txn/a.go", file("github.com/google/uuid"), "fsm/txn may import the standard library only"},
		{"a module of its own", "scripts/tool/a.go", file(module + "/fsm"), ""},
		{"a file at the top", "notes.txt", "", "notes.txt does not belong"},
		{"a directory at the top", "pkg/a.txt", "", "pkg does not belong"},
		{"a dotfile at the top", ".editorconfig", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, top := range topDirs {
				mustWrite(t, filepath.Join(dir, top, ".keep"), "")
			}
			mustWrite(t, filepath.Join(dir, "scripts/tool/go.mod"), "module example.com/tool\n")
			mustWrite(t, filepath.Join(dir, filepath.FromSlash(tt.path)), tt.content)
			root := os.DirFS(dir)
			got := strings.Join(append(checkImports(t, root), checkTop(t, root)...), "\n")
			switch {
			case tt.want == "" && got != "":
				t.Errorf("complained: %s", got)
			case !strings.Contains(got, tt.want):
				t.Errorf("complaint %q, want %q in it", got, tt.want)
			}
		})
	}

	t.Run("a directory is missing", func(t *testing.T) {
		got := strings.Join(checkTop(t, os.DirFS(t.TempDir())), "\n")
		for _, dir := range topDirs {
			if !strings.Contains(got, dir+"/ is missing") {
				t.Errorf("no complaint about %s/ in %q", dir, got)
			}
		}
	})
}

// checkImports reads every Go file that is not a test and reports the imports
// that the table forbids.
func checkImports(t *testing.T, root fs.FS) []string {
	t.Helper()
	var complaints []string
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(root, name)
		}
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		imports, err := importsOf(root, name)
		if err != nil {
			return err
		}
		complaints = append(complaints, judge(name, imports)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return complaints
}

// enter skips what holds no code of the module: hidden directories, test data,
// outputs, and modules of their own.
func enter(root fs.FS, dir string) error {
	if dir == "." {
		return nil
	}
	base := path.Base(dir)
	if strings.HasPrefix(base, ".") || base == "testdata" || slices.Contains(topOutputs, dir) {
		return fs.SkipDir
	}
	if _, err := fs.Stat(root, path.Join(dir, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func importsOf(root fs.FS, name string) ([]string, error) {
	source, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var imports []string
	for _, spec := range file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		imports = append(imports, p)
	}
	return imports, nil
}

// judge reports what one file imports against the table.
func judge(name string, imports []string) []string {
	dir := path.Dir(name)
	i := slices.IndexFunc(house, func(r room) bool { return matches(r.packages, dir) })
	if i < 0 {
		return []string{fmt.Sprintf("%s: package %s has no row in the import table", name, dir)}
	}
	allowed := strings.Fields(house[i].imports)
	var complaints []string
	for _, imported := range imports {
		ours, isOurs := strings.CutPrefix(imported, module+"/")
		switch {
		case isOurs && !slices.ContainsFunc(allowed, func(p string) bool { return matches(p, ours) }):
			complaints = append(complaints, fmt.Sprintf("%s: %s may not import %s", name, dir, ours))
		case dir == standardOnly && !isOurs && strings.Contains(strings.Split(imported, "/")[0], "."):
			complaints = append(complaints, fmt.Sprintf("%s: %s may import the standard library only, not %s", name, dir, imported))
		}
	}
	return complaints
}

// matches reports whether the package path p fits the pattern.
func matches(pattern, p string) bool {
	if pattern == "..." {
		return true
	}
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return p == tree || strings.HasPrefix(p, tree+"/")
	}
	ok, err := path.Match(pattern, p)
	return ok && err == nil
}

// checkTop reports what is missing from the top of the tree, and what does not
// belong there.
func checkTop(t *testing.T, root fs.FS) []string {
	t.Helper()
	entries, err := fs.ReadDir(root, ".")
	if err != nil {
		t.Fatal(err)
	}
	var complaints []string
	present := map[string]bool{}
	for _, e := range entries {
		name := e.Name()
		present[name] = e.IsDir()
		known := topFiles
		if e.IsDir() {
			known = topDirs
		}
		isOutput := slices.ContainsFunc(topOutputs, func(p string) bool { return matches(p, name) })
		if !strings.HasPrefix(name, ".") && !slices.Contains(known, name) && !isOutput {
			complaints = append(complaints, name+" does not belong at the top of the tree")
		}
	}
	for _, dir := range topDirs {
		if !present[dir] {
			complaints = append(complaints, dir+"/ is missing at the top of the tree")
		}
	}
	return complaints
}

func mustWrite(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
