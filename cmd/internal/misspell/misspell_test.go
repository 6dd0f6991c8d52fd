package misspell

import "testing"

// What is proven here: a slip of the finger is recognised, and another word is not
// taken for one.

func TestNear(t *testing.T) {
	known := []string{"node_id", "data_dir", "peers", "retention", "log_level", "log_format", "log_store", "http_addr", "grpc_addr"}
	for typed, want := range map[string]string{
		"node_ids":  "node_id",
		"node-id":   "node_id",
		"NODE_ID":   "node_id",
		"perrs":     "peers",
		"peesr":     "peers", // neighbours that changed places
		"retenion":  "retention",
		"log_lvel":  "log_level",
		"log":       "log_level", // the shortest that begins so; the first of equals
		"htpp_addr": "http_addr",
		"xyz":       "",
		"pe":        "peers",
		"id":        "",
		"":          "",
	} {
		if got := Near(typed, known); got != want {
			t.Errorf("%q: guessed %q, want %q", typed, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "axc", 1},
		{"abc", "acb", 1}, {"abcd", "badc", 2}, {"kitten", "sitting", 3},
	} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("from %q to %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
