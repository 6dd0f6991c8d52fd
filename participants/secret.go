package participants

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Reference names a secret without holding it: "env:NAME" is an environment
// variable, "file:/PATH" a file. A registration is replicated and shown to people,
// so it carries references only, and each node resolves them for itself.
type Reference string

// maxSecret bounds a secret's file in bytes: a certificate chain fits, a file
// that was named by mistake does not fill the memory.
const maxSecret = 64 << 10

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate reports whether r is a reference. Its error never quotes r, which may
// be a secret that somebody wrote in the place of its name.
func (r Reference) Validate() error {
	kind, name, _ := strings.Cut(string(r), ":")
	switch {
	case r == "":
		return errors.New("missing or empty")
	case kind == "env" && envName.MatchString(name), kind == "file" && filepath.IsAbs(name):
		return nil
	default:
		return errors.New("want a reference to a secret, env:NAME or file:/PATH, and not the secret itself")
	}
}

// Resolve reads the secret, now and on this node; it blocks for a file's reading.
// Line ends after the secret are cut off. Its errors name the reference and never
// what it refers to.
func (r Reference) Resolve() (string, error) {
	if err := r.Validate(); err != nil {
		return "", err
	}
	kind, name, _ := strings.Cut(string(r), ":")
	read := readSecretFile
	if kind == "env" {
		read = readSecretVariable
	}
	secret, err := read(name)
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", r, err)
	}
	if secret = strings.TrimRight(secret, "\r\n"); secret == "" {
		return "", fmt.Errorf("secret %s is empty on this node", r)
	}
	return secret, nil
}

func readSecretVariable(name string) (string, error) {
	secret, ok := os.LookupEnv(name)
	if !ok {
		return "", errors.New("the variable is not set on this node")
	}
	return secret, nil
}

func readSecretFile(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // an operator named it
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	content, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	if len(content) > maxSecret {
		return "", fmt.Errorf("the file has more than %d bytes", maxSecret)
	}
	return string(content), nil
}
