package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A compiler says whether mutants compile, with the tests that stand in their package. It
// checks syntax and types, as the Go compiler does before it makes code, and takes what
// a package imports from the build cache: some milliseconds a mutant, where go build
// takes a second.
type compiler struct {
	fset     *token.FileSet
	files    map[string]*ast.File // by path, as they are without a mutant
	packages map[string]listed    // by directory
	imports  types.Importer
}

// listed is what the Go tool tells of a package (go help list).
type listed struct {
	Dir          string
	ImportPath   string
	Export       string // the file of its types
	ForTest      string
	GoFiles      []string
	TestGoFiles  []string // that stand in the package itself; the others are in XTestGoFiles
	XTestGoFiles []string
	Module       *struct{ GoVersion string }
}

// newCompiler reads what the Go tool knows of the mutants' packages. It has compiled what
// they import, where that is not in the build cache.
func (t *tree) newCompiler(ctx context.Context, ms []mutant) (*compiler, error) {
	c := &compiler{fset: token.NewFileSet(), files: map[string]*ast.File{}, packages: map[string]listed{}}
	exports := map[string]string{}
	all, err := t.list(ctx, ms)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		exports[p.ImportPath] = p.Export
		if p.Module != nil && p.ForTest == "" && !strings.HasSuffix(p.ImportPath, ".test") {
			c.packages[p.Dir] = p
		}
	}
	c.imports = importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	return c, nil
}

// list asks the Go tool for the mutants' packages and all that they and their tests
// import.
func (t *tree) list(ctx context.Context, ms []mutant) (all []listed, err error) {
	args := []string{"list", "-export", "-deps", "-test", "-json=Dir,ImportPath,Export,ForTest,GoFiles,TestGoFiles,XTestGoFiles,Module"}
	for _, m := range ms {
		if !slices.Contains(args, m.pkg()) {
			args = append(args, m.pkg())
		}
	}
	var complaints bytes.Buffer
	list := exec.CommandContext(ctx, "go", args...)
	list.Dir, list.Stderr = t.root, &complaints
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list, of the tree without a mutant: %w\n%s", err, &complaints)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, p)
	}
}

// check compiles the package of a file, with another in its place.
func (c *compiler) check(original, mutated string) error {
	p := c.packages[filepath.Dir(original)]
	if !slices.Contains(p.GoFiles, filepath.Base(original)) {
		return errors.New("its file is not part of the package")
	}
	var files []*ast.File
	for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles) {
		path := filepath.Join(p.Dir, name)
		if path == original {
			path = mutated
		}
		file, err := c.parse(path)
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	var problems []error
	config := types.Config{
		GoVersion: "go" + p.Module.GoVersion,
		Importer:  c.imports,
		Sizes:     types.SizesFor("gc", runtime.GOARCH),
		Error:     func(err error) { problems = append(problems, err) },
	}
	_, _ = config.Check(p.ImportPath, c.fset, files, nil) // its error is the first of the problems
	if len(problems) > 0 {
		return fmt.Errorf("it does not compile:\n%w", errors.Join(problems...))
	}
	return nil
}

// hasTest fails where none of the package's tests has a name. Go takes it for success
// that there is nothing to run.
func (c *compiler) hasTest(original, name string) error {
	p := c.packages[filepath.Dir(original)]
	for _, file := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
		parsed, err := c.parse(filepath.Join(p.Dir, file))
		if err != nil {
			return err
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == name {
				return nil
			}
		}
	}
	return fmt.Errorf("its package has no test %s, which it says notices", name)
}

func (c *compiler) parse(path string) (*ast.File, error) {
	if file := c.files[path]; file != nil {
		return file, nil
	}
	file, err := parser.ParseFile(c.fset, path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("it does not compile: %w", err)
	}
	c.files[path] = file
	return file, nil
}
