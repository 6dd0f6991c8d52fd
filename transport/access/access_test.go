package access_test

// What is proven here: a token is known by its hash and by nothing else, a bad file
// leaves the last good one in use and tells every mistake without quoting a secret, and
// nobody gets past its limits.

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/decree-tx/decree/transport/access"
	"github.com/decree-tx/decree/transport/certs"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, content string) (*access.File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "access")
	write(t, path, content)
	f, err := access.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f, path
}

var web = certs.Identity{Role: certs.Client, Name: "web"}

func TestTokens(t *testing.T) {
	token, line := access.NewToken(web)
	other, _ := access.NewToken(web)
	if strings.Contains(line, token) || token == other || len(token) < 43 {
		t.Fatalf("%s, %s, %s", token, line, other)
	}
	f, path := open(t, "# tokens\n\n"+line+" # of the web shop\n")
	for _, tt := range []struct {
		token string
		want  certs.Identity
	}{
		{token, web}, {other, certs.Identity{}}, {"", certs.Identity{}},
		{strings.Split(line, "sha256:")[1], certs.Identity{}}, // its hash is no token
	} {
		if got, ok := f.Identify(tt.token); got != tt.want || ok != (tt.want != certs.Identity{}) {
			t.Errorf("%q is %s, %v; want %s", tt.token, got, ok, tt.want)
		}
	}
	reads := f.Reads()
	again, second := access.NewToken(web)
	write(t, path, line+"\n"+second+"\n") // a token is replaced: both hold for a while
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{token, again} {
		if who, _ := f.Identify(good); who != web {
			t.Error("a token of two is not known")
		}
	}
	write(t, path, second)
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Identify(token); ok {
		t.Error("a token that was taken out is known")
	}
	if f.Reads() != reads+2 {
		t.Errorf("%d reads after %d", f.Reads(), reads)
	}
	var none *access.File
	if _, ok := none.Identify(token); ok {
		t.Error("nobody's token is known")
	}
}

func TestEveryMistakeIsToldAndNoSecret(t *testing.T) {
	token, line := access.NewToken(web)
	f, path := open(t, line)
	write(t, path, strings.Join([]string{
		"client/web token=" + token,
		"root/x rate=1",
		"client/web rate=0 in-flight=1",
		"client/web burst=5",
		"client/web rat=5",
		"client/web rate=1 rate=2",
		"client/a rate=1", "client/a in-flight=1",
		"node/n1 " + strings.TrimPrefix(line, "client/web "),
		line, strings.Replace(line, "web", "shop", 1),
	}, "\n"))
	err := f.Reload()
	for _, want := range []string{
		"line 1: token: want sha256:", "line 2: role", "line 3: rate: want calls a second", "line 4: burst: means nothing",
		"line 5: rat: want token=", "line 6: rate stands there twice", "line 8: client/a has limits on another line",
		"line 9: token: a node is known", "line 11: token: the same as one of client/web",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if strings.Contains(err.Error(), token) {
		t.Error("a token is in an error")
	}
	if who, _ := f.Identify(token); who != web {
		t.Error("the last good file is not in use")
	}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := open(t, "client/web rate=10 burst=3\nclient/batch in-flight=2\n")
		ms := access.NewMeters(f, access.Limits{Rate: 1})
		batch, guest := certs.Identity{Role: certs.Client, Name: "batch"}, certs.Identity{Role: certs.Client, Name: "guest"}
		enter := func(who certs.Identity, wait time.Duration) access.Pass {
			t.Helper()
			pass, err := ms.Enter(who)
			var over *access.OverError
			switch {
			case wait == 0 && err != nil:
				t.Errorf("refused: %v", err)
			case wait != 0 && (!errors.As(err, &over) || (over.RetryAfter-wait).Abs() > time.Millisecond):
				t.Errorf("got %v, want to be told %s", err, wait)
			}
			return pass
		}
		for range 3 {
			enter(web, 0)
		}
		enter(web, 100*time.Millisecond)
		time.Sleep(50 * time.Millisecond)
		enter(web, 50*time.Millisecond)
		time.Sleep(50 * time.Millisecond)
		enter(web, 0)
		time.Sleep(time.Hour) // saves up a burst and no more
		for range 3 {
			enter(web, 0)
		}
		enter(web, 100*time.Millisecond)

		first, second := enter(batch, 0), enter(batch, 0)
		enter(batch, 100*time.Millisecond)
		first.Leave()
		first.Leave() // once is enough
		third := enter(batch, 0)
		enter(batch, 100*time.Millisecond)
		second.Leave()
		third.Leave()

		enter(guest, 0) // by the defaults
		enter(guest, time.Second)
	})
}

func TestNoLimitsCostNothing(t *testing.T) {
	ms := access.NewMeters(nil, access.Limits{})
	if n := testing.AllocsPerRun(100, func() {
		pass, err := ms.Enter(web)
		if err != nil {
			t.Fatal(err)
		}
		pass.Leave()
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}
