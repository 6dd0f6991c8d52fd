// Package web is the page that a node serves to people: what goes on now, transactions,
// one of them as a timeline, participants, the cluster, and an operator's actions.
//
// It owns files and headers and nothing else. The page reads the JSON API of the node that
// served it, as any client does and with the rights of whoever signs in, so that nothing
// can be seen or done here that could not be otherwise. There is no build step: what the
// browser runs is what lies in static.
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed static
var static embed.FS

// policy lets the page load what this node serves, talk to this node, and be framed by
// nobody. Trusted types without a policy of the page's own mean that no text can become
// markup or code, whatever a name or an error says.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// headers go with every answer.
var headers = map[string]string{
	"Content-Security-Policy":      policy,
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
	"Cache-Control":                "no-cache", // kept, and asked about: the next version may have another
}

// file is one of the page's, ready to be served.
type file struct{ body, kind, tag string }

// Handler serves the page at "/" and its files below "/ui/". It is safe for concurrent
// use and has no state.
func Handler() http.Handler {
	files := read()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		name := "index.html"
		if r.URL.Path != "/" {
			name = strings.TrimPrefix(r.URL.Path, "/ui/")
		}
		f, ok := files[name]
		if !ok {
			http.Error(w, "no such file", http.StatusNotFound)
			return
		}
		w.Header().Set("ETag", f.tag)
		if strings.Contains(r.Header.Get("If-None-Match"), f.tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", f.kind)
		w.Header().Set("Content-Length", fmt.Sprint(len(f.body)))
		w.Write([]byte(f.body)) //nolint:errcheck,gosec // the reader may be gone
	})
}

// read loads all files. They are part of the binary: what is wrong with them is wrong at
// build time.
func read() map[string]file {
	root, err := fs.Sub(static, "static")
	if err != nil {
		panic(err)
	}
	files := make(map[string]file)
	if err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(root, name)
		sum := sha256.Sum256(body)
		files[name] = file{string(body), kind(name), `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
		return err
	}); err != nil {
		panic(err)
	}
	return files
}

// kind is the media type, which must not depend on the machine's tables.
func kind(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		if k := mime.TypeByExtension(path.Ext(name)); k != "" {
			return k
		}
		return "text/plain; charset=utf-8"
	}
}
