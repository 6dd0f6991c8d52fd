package participants

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is proven here: a registration can carry a secret's name only, the secret
// is found where the name says, and no error ever shows it.

func TestReferenceResolves(t *testing.T) {
	t.Setenv("DECREE_TEST_SECRET", "from the environment")
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("from a file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for r, want := range map[Reference]string{
		"env:DECREE_TEST_SECRET":  "from the environment",
		Reference("file:" + path): "from a file",
	} {
		if got, err := r.Resolve(); err != nil || got != want {
			t.Errorf("%s resolves to %q, %v; want %q", r, got, err, want)
		}
	}
}

func TestReferenceRefusesTheSecretItself(t *testing.T) {
	for _, r := range []Reference{"postgres://bob:hunter2@db/orders", "hunter2", "env:hunter2 x", "file:hunter2", "vault:hunter2"} {
		err := r.Validate()
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v; want a refusal that does not quote it", r, err)
		}
		if _, err := r.Resolve(); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s resolves: %v", r, err)
		}
	}
}

func TestReferenceErrorsNameTheReference(t *testing.T) {
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, []byte(strings.Repeat("hunter2", maxSecret)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DECREE_TEST_EMPTY", "\n")
	for r, want := range map[Reference]string{
		"env:DECREE_TEST_NO_SUCH":        "env:DECREE_TEST_NO_SUCH: the variable is not set",
		"env:DECREE_TEST_EMPTY":          "env:DECREE_TEST_EMPTY is empty",
		"file:/no/such/file":             "file:/no/such/file",
		Reference("file:" + big):         "more than",
		Reference("file:" + t.TempDir()): "directory",
	} {
		_, err := r.Resolve()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q and not the secret", r, err, want)
		}
	}
}
