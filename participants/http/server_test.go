package httpparticipant_test

// These tests prove that what cannot be a branch never reaches the participant
// behind Handler, and that nobody does who has no token.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/decree-tx/decree/participants"
	httpparticipant "github.com/decree-tx/decree/participants/http"
)

// post sends a body as curl would.
func post(t *testing.T, url, body string) (code int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(bounded(t), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	return send(t, request)
}

func send(t *testing.T, request *http.Request) (code int, text string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// untouched is a participant that nobody may reach.
func untouched(t *testing.T) *scripted {
	asked := func(context.Context, participants.Branch) error { t.Error("the participant was asked"); return nil }
	return &scripted{
		prepare: func(ctx context.Context, b participants.Branch) (participants.Vote, error) {
			return participants.Yes(), asked(ctx, b)
		},
		commit: asked,
		abort:  asked,
		status: func(ctx context.Context, b participants.Branch) (participants.Status, error) { return 0, asked(ctx, b) },
		list: func(ctx context.Context, _ string) ([]participants.Branch, error) {
			return nil, asked(ctx, participants.Branch{})
		},
		recovers: true,
	}
}

// Whatever is wrong with a request is answered 400 and named; the participant is
// not asked.
func TestMalformedRequests(t *testing.T) {
	url := serve(t, httpparticipant.Handler(untouched(t), httpparticipant.Options{}))
	good := map[string]any{
		"cluster": "c1", "txid": uuid.Must(uuid.NewV7()).String(), "branch": 1, "epoch": 7, "horizon_ms": 1000,
		"digest": strings.Repeat("0f", 32), "payload": 1,
	}
	for _, tc := range []struct {
		field string
		value any // nil: the field is missing
		only  string
	}{
		{field: "cluster"}, {field: "cluster", value: ""}, {field: "cluster", value: strings.Repeat("c", 256)},
		{field: "txid"}, {field: "txid", value: ""}, {field: "txid", value: uuid.NewString()}, {field: "txid", value: 7},
		{field: "branch"}, {field: "branch", value: 0}, {field: "branch", value: 257}, {field: "branch", value: "1"},
		{field: "epoch"}, {field: "epoch", value: -1}, {field: "epoch", value: uint64(1 << 53)}, {field: "epoch", value: 1.5},
		{field: "horizon_ms"}, {field: "horizon_ms", value: -1}, {field: "horizon_ms", value: int64(9223372036855)},
		{field: "digest", only: "/prepare"}, {field: "digest", value: strings.Repeat("0f", 31), only: "/prepare"},
		{field: "digest", value: strings.Repeat("0g", 32), only: "/prepare"},
		{field: "payload", only: "/prepare"}, {field: "payload_base64", value: "AA==", only: "/prepare"},
	} {
		request := maps.Clone(good)
		delete(request, tc.field)
		if tc.value != nil {
			request[tc.field] = tc.value
		}
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/prepare", "/commit", "/abort", "/status"} {
			if tc.only != "" && tc.only != path {
				continue
			}
			code, text := post(t, url+path, string(body))
			if code != 400 || !strings.Contains(text, `"invalid_request"`) || !strings.Contains(text, tc.field) {
				t.Errorf("%s with %s %v: %d %s; want 400 and a word about it", path, tc.field, tc.value, code, text)
			}
		}
	}
	for _, body := range []string{"", "{", "[]", "null", `{"cluster": "a", "cluster": "b"}`, `{} {}`, "\xff"} {
		for _, path := range []string{"/prepare", "/commit", "/abort", "/status", "/recover"} {
			if code, text := post(t, url+path, body); code != 400 {
				t.Errorf("%s %q: %d %s; want 400", path, body, code, text)
			}
		}
	}
	code, text := post(t, url+"/commit", `{"cluster": "", "txid": "x", "branch": 0, "epoch": 1, "horizon_ms": -1}`)
	for _, problem := range []string{"cluster", "txid", "branch", "horizon_ms"} {
		if code != 400 || !strings.Contains(text, problem) {
			t.Errorf("%d %s; want 400 and a word about the %s", code, text, problem)
		}
	}
}

// What is no request of this wire is refused for what it is.
func TestRequestsOfAnotherKind(t *testing.T) {
	url := serve(t, httpparticipant.Handler(untouched(t), httpparticipant.Options{}))
	for name, tc := range map[string]struct {
		method, path, kind string
		body               io.Reader
		want               int
	}{
		"a browser's look": {"GET", "/prepare", "", nil, 405},
		"another method":   {"PUT", "/commit", "application/json", strings.NewReader("{}"), 405},
		"another path":     {"POST", "/rollback", "application/json", strings.NewReader("{}"), 404},
		"a form":           {"POST", "/abort", "application/x-www-form-urlencoded", strings.NewReader("a=b"), 415},
		"no type":          {"POST", "/abort", "", strings.NewReader("{}"), 415},
		"far too much":     {"POST", "/prepare", "application/json", bytes.NewReader(make([]byte, 4<<20+1)), 413},
	} {
		request, err := http.NewRequestWithContext(bounded(t), tc.method, url+tc.path, tc.body)
		if err != nil {
			t.Fatal(err)
		}
		if tc.kind != "" {
			request.Header.Set("Content-Type", tc.kind)
		}
		if code, text := send(t, request); code != tc.want {
			t.Errorf("%s: %d %s; want %d", name, code, text, tc.want)
		}
	}
}

// Only callers with one of the tokens are heard, and a token can be replaced while
// both are in use.
func TestTokensOfTheHandler(t *testing.T) {
	t.Setenv("DECREE_TEST_OLD", "old-token")
	file := filepath.Join(t.TempDir(), "token")
	var log bytes.Buffer
	handler := httpparticipant.Handler(&scripted{
		commit: func(context.Context, participants.Branch) error { return nil },
	}, httpparticipant.Options{
		Tokens: []participants.Reference{participants.Reference("file:" + file), "env:DECREE_TEST_OLD"},
		Log:    hclog.New(&hclog.LoggerOptions{Output: &log}),
	})
	url := serve(t, handler)
	commit := func(authorization string) (int, string) {
		t.Helper()
		body := fmt.Sprintf(`{"cluster": "c1", "txid": %q, "branch": 1, "epoch": 7, "horizon_ms": 0}`, uuid.Must(uuid.NewV7()))
		request, err := http.NewRequestWithContext(bounded(t), http.MethodPost, url+"/commit", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", authorization)
		return send(t, request)
	}
	for _, wrong := range []string{"", "Bearer", "Bearer ", "Bearer new-token", "Basic old-token", "old-token", "Bearer  old-token"} {
		if code, text := commit(wrong); code != 401 {
			t.Errorf("Authorization %q: %d %s; want 401", wrong, code, text)
		} else if strings.Contains(text, "DECREE_TEST") || strings.Contains(text, file) {
			t.Errorf("Authorization %q: %s tells a stranger about the service", wrong, text)
		}
	}
	if code, text := commit("bearer old-token"); code != 200 {
		t.Errorf("the old token: %d %s", code, text)
	}
	if err := os.WriteFile(file, []byte("new-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, text := commit("Bearer new-token"); code != 200 {
		t.Errorf("the new token: %d %s", code, text)
	}
	if !strings.Contains(log.String(), file) || strings.Contains(log.String(), "-token") {
		t.Errorf("log %q; want the file that could not be read, and no token", log.String())
	}
}
