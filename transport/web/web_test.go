package web

// What is proven here: every file of the page is served with its type and with headers
// that keep other pages and other people's text out; it is kept by a browser, and asked
// about again; and the page loads nothing from elsewhere and has nothing inline.

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, path, match string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if match != "" {
		r.Header.Set("If-None-Match", match)
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func paths(t *testing.T) []string {
	t.Helper()
	found, err := fs.Glob(static, "static/*")
	if err != nil || len(found) < 5 {
		t.Fatalf("files %v, error %v", found, err)
	}
	all := []string{"/"}
	for _, f := range found {
		all = append(all, "/ui/"+strings.TrimPrefix(f, "static/"))
	}
	return all
}

func TestEveryFileIsServed(t *testing.T) {
	for _, path := range paths(t) {
		r := get(t, path, "")
		if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") == "" || r.ContentLength == 0 {
			t.Errorf("%s: %s, %q, %d bytes", path, r.Status, r.Header.Get("Content-Type"), r.ContentLength)
		}
		for name, want := range headers {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if again := get(t, path, r.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s: asked again with its tag: %s", path, again.Status)
		}
		if other := get(t, path, `"another"`); other.StatusCode != http.StatusOK {
			t.Errorf("%s: asked with another tag: %s", path, other.Status)
		}
	}
	for _, path := range []string{"/ui/", "/ui/none.js", "/ui/../web.go", "/ui/index.html/x"} {
		if r := get(t, path, ""); r.StatusCode != http.StatusNotFound || r.Header.Get("Content-Security-Policy") != policy {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
}

// Text from outside must have no way to become markup. The policy would stop it in the
// browser; here it is not even written.
func TestPageWritesTextOnly(t *testing.T) {
	bad := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|javascript:|https?://[^w]|style=|\son[a-z]+="`)
	for _, path := range paths(t) {
		if strings.HasPrefix(path, "/ui/uplot") {
			continue
		}
		body, err := fs.ReadFile(static, "static/"+strings.TrimPrefix(strings.TrimPrefix(path, "/ui/"), "/"))
		if path == "/" {
			body, err = fs.ReadFile(static, "static/index.html")
		}
		if err != nil {
			t.Fatal(err)
		}
		if found := bad.Find(body); found != nil {
			t.Errorf("%s has %q", path, found)
		}
		if strings.HasSuffix(path, ".html") || path == "/" {
			for _, script := range regexp.MustCompile(`<script[^>]*>[^<]|<style`).FindAll(body, -1) {
				t.Errorf("%s has something inline: %q", path, script)
			}
		}
	}
}
