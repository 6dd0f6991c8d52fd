package page

// What is proven here: where a node asks who calls, the page shows nothing until somebody
// signs in, a reader can look and not act, an operator can, and what they signed in with
// stays in the tab.

import (
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
)

// castle is one node that speaks TLS, and the tokens of its people.
type castle struct {
	url              string
	reader, operator string
}

func newCastle(t *testing.T) castle {
	bin, dir := decreeBinary(t), t.TempDir()
	decree := func(env []string, args ...string) string {
		t.Helper()
		cmd := exec.Command(bin, args...)
		cmd.Dir, cmd.Env = dir, append(environment(), env...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("decree %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	decree(nil, "cert", "ca")
	decree(nil, "cert", "issue", "node", "n1=127.0.0.1,localhost")
	var c castle
	var lines []string
	for role, token := range map[string]*string{"reader": &c.reader, "operator": &c.operator} {
		var line string
		for _, word := range strings.FieldsFunc(decree(nil, "token", "create", role, "ada"), func(r rune) bool { return r == '\n' }) {
			word = strings.TrimSpace(word)
			switch {
			case strings.HasPrefix(word, role+"/ada"):
				line = word
			case !strings.Contains(word, " ") && len(word) > 20:
				*token = word
			}
		}
		if line == "" || *token == "" {
			t.Fatalf("no line, or no token, for %s", role)
		}
		lines = append(lines, line)
	}
	access := filepath.Join(dir, "access")
	if err := os.WriteFile(access, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	certs := filepath.Join(dir, "certs")
	raft, grpc, web := free(t), free(t), free(t)
	node := exec.Command(bin, "server", "--node-id", "n1", "--data-dir", filepath.Join(dir, "n1"), "--peers", "n1="+raft,
		"--raft-addr", raft, "--grpc-addr", grpc, "--http-addr", web, "--access-file", access,
		"--tls-cert", filepath.Join(certs, "node-n1.pem"), "--tls-key", filepath.Join(certs, "node-n1.key"), "--tls-ca", filepath.Join(certs, "ca.pem"))
	var log strings.Builder
	node.Stdout, node.Stderr, node.Env = &log, &log, environment()
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		node.Process.Signal(syscall.SIGKILL)
		node.Wait()
		if t.Failed() {
			t.Logf("n1's log:\n%s", log.String())
		}
	})
	c.url = "https://" + web
	blind := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	await(t, "a leader", func() bool {
		res, err := blind.Get(c.url + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	decree([]string{"DECREE_TOKEN=" + c.operator, "DECREE_CA=" + filepath.Join(certs, "ca.pem"), "DECREE_ENDPOINTS=" + grpc},
		"participant", "put", "ledger", "--driver", "sim", "--config", `{"success_rate": 1}`)
	return c
}

func TestSignIn(t *testing.T) {
	c := newCastle(t)
	p := open(t, newBrowser(t), c.url+"/#/participants", look{width: 1280, height: 800, refused: true})
	p.reads("#banner", "Sign in to see this cluster.")
	p.wants("nothing of the cluster", `!document.body.textContent.includes("ledger")`)

	signIn := func(token string) {
		p.run(chromedp.Evaluate(`[...document.querySelectorAll("#tools button")].find((b) => b.textContent === "Sign in")?.click()`, nil),
			chromedp.WaitVisible("dialog input", chromedp.ByQuery), chromedp.SetValue("dialog input", token, chromedp.ByQuery),
			chromedp.Click("dialog button.primary", chromedp.ByQuery))
	}
	signIn("decree_not_a_token_of_anybody_here")
	p.reads("dialog .wrong", "not known")
	p.press(escape)
	p.wants("no dialog", `!document.querySelector("dialog")`)

	remove := func() {
		p.reads("article", "ledger")
		p.run(chromedp.Click("#remove-ledger", chromedp.ByQuery), chromedp.SendKeys("dialog input[name=reason]", "a test", chromedp.ByQuery),
			chromedp.SendKeys("dialog input[name=typed]", "ledger", chromedp.ByQuery), chromedp.Click("dialog button.danger", chromedp.ByQuery))
	}
	signIn(c.reader)
	remove()
	p.reads("dialog .wrong", "needs the role operator")
	p.press(escape)
	p.wants("no dialog", `!document.querySelector("dialog")`)
	p.wants("the token in this tab only", `document.cookie === "" && !JSON.stringify(localStorage).includes("token") && sessionStorage.getItem("token").length > 20`)

	p.run(chromedp.Evaluate(`[...document.querySelectorAll("#tools button")].find((b) => b.textContent === "Sign out").click()`, nil))
	p.reads("#banner", "Sign in to see this cluster.")
	p.wants("no token", `sessionStorage.getItem("token") === null`)
	signIn(c.operator)
	remove()
	p.reads(".empty", "No participant is registered")
	p.goTo("#/cluster")
	p.reads("table", "operator/ada")
}
