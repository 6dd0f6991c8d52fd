package page

// What is proven here, in a real browser and against three real processes: each screen
// shows what is so, by keyboard, on a phone, in the dark; text from outside stays text; the
// page stays quick with a hundred thousand transactions, and goes on by itself when nodes
// fall. In none of it is an error logged, or the policy of its contents broken.

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

func TestPage(t *testing.T) {
	x := newTrio(t)
	browser := newBrowser(t)
	s := tell(x)
	home := "http://" + x.follower().http + "/"

	t.Run("overview", func(t *testing.T) {
		p := open(t, browser, home, desk)
		p.reads(".led", x.leader().id+" leads")
		p.reads(".led", "seen from")
		p.reads(".concerns", "1 damaged")
		p.wants("the oldest", `document.querySelector(".tile a")?.hash.length > 30`)
		p.wants("the latest", `document.querySelectorAll(".latest li").length === 5`)
		p.wants("two charts", `document.querySelectorAll(".uplot canvas").length === 2`)
		p.reads(".open", "not secured")
		p.run(chromedp.Click(".concerns a", chromedp.ByQuery))
		p.wants("the damaged one", `document.querySelectorAll(".list .trow").length === 1`)
		p.reads(".list .trow", "damaged")
	})
	t.Run("timelines", func(t *testing.T) { timelines(t, x, browser, home, s) })
	t.Run("keyboard", func(t *testing.T) { keyboard(t, browser, home, s) })
	t.Run("cluster", func(t *testing.T) {
		x.submit("decision", branch("orders", behaviour{}), branch("payments", behaviour{FailCommits: -1}))
		defer x.service.heal()
		p := open(t, browser, home+"#/cluster", desk)
		p.wants("three nodes", `document.querySelectorAll("article.node").length === 3`)
		p.wants("one leader", `document.querySelectorAll("article.leads").length === 1`)
		p.reads("article.leads", x.leader().id)
		p.goTo("#/participants")
		p.wants("five participants", `document.querySelectorAll("article").length === 5`)
		p.reads("article", "down")
		p.run(chromedp.Click("#check-ledger", chromedp.ByQuery))
		p.reads(".told", "Reached.")
	})
	t.Run("actions", func(t *testing.T) { actions(t, x, browser, home, s) })
	t.Run("every look", func(t *testing.T) { looks(t, browser, home, s) })
	t.Run("hostile", func(t *testing.T) { hostile(t, x, browser) })
	t.Run("failover", func(t *testing.T) { failover(t, x, browser) })
}

// timelines looks at each story, and at one that ends while it is looked at.
func timelines(t *testing.T, x *trio, browser ctx, home string, s stories) {
	p := open(t, browser, home+"#/tx/"+s.commit, desk)
	p.reads("h1", "Committed")
	p.wants("three lanes and the coordinator's", `document.querySelectorAll("svg.timeline .lane").length === 4`)
	p.wants("its prepares, votes, deliveries and receipts", `[".prepare", ".vote.yes", ".deliver.commit", ".receipt.commit"].every((c) => document.querySelectorAll("svg.timeline " + c).length === 3)`)
	p.reads("svg.timeline", "commit point")
	var got struct {
		Transaction struct{ Staged, Decided, Finished struct{ Index json.Number } }
	}
	if err := x.api("/v1/transactions/"+s.commit, &got); err != nil {
		t.Fatal(err)
	}
	for _, index := range []json.Number{got.Transaction.Staged.Index, got.Transaction.Decided.Index, got.Transaction.Finished.Index} {
		p.reads("svg.timeline", "entry "+index.String())
	}
	inOrder(p)

	p.goTo("#/tx/" + s.no)
	p.reads("h1", "Aborted")
	p.reads(".reason", "by payments")
	p.reads("svg.timeline .note", "votes no: the balance of alice")
	p.goTo("#/tx/" + s.damage)
	p.reads("h1", "damaged")
	p.reads("table", "rolled back by hand on Tuesday")
	p.goTo("#/tx/" + s.healed)
	p.wants("five failed attempts", `document.querySelectorAll("svg.timeline .cross").length === 5`)
	p.reads("table", "HTTP 503")

	p.goTo("#/tx/" + s.pending)
	p.reads("h1", "delivery pending")
	p.reads("table", "HTTP 503")
	p.wants("a next attempt", `document.querySelector("svg.timeline .now")`)
	x.service.heal()
	p.reads("h1", "Committed")
	p.wants("its end", `!document.querySelector("h1").textContent.includes("pending") && document.querySelectorAll("svg.timeline .receipt.commit").length === 3`)

	p.mayLose(true) // the refusal is logged
	p.goTo("#/tx/0192f3aa-0000-7000-8000-000000000000")
	p.reads("h1", "No such transaction")
}

// inOrder checks that what a drawing shows goes from left to right as the protocol does.
func inOrder(p *tab) {
	p.t.Helper()
	script := `(() => {
		const x = (c, end) => [...document.querySelectorAll("svg.timeline " + c)].map((e) => { const b = e.getBoundingClientRect(); return end ? b.right : b.left; });
		const point = document.querySelector("svg.timeline .point").getBoundingClientRect().left;
		return Math.max(...x(".prepare", true)) <= point + 9 && Math.min(...x(".deliver")) >= point - 1 && Math.max(...x(".deliver", true)) <= Math.max(...x(".receipt.commit", true)) + 1;
	})()`
	p.wants("prepares before the commit point and deliveries after", script)
}

func keyboard(t *testing.T, browser ctx, home string, s stories) {
	p := open(t, browser, home, desk)
	p.reads("h1", "Overview")
	p.press("?")
	p.reads("dialog", "Keyboard")
	p.press(escape)
	p.wants("no dialog", `!document.querySelector("dialog")`)
	for key, title := range map[string]string{"p": "Participants", "c": "Cluster", "o": "Overview", "t": "Transactions"} {
		p.press("g", key)
		p.reads("h1", title)
	}
	p.press("g", "t")
	p.wants("rows", `document.querySelectorAll(".list .trow").length === 5`)
	p.press("j", "j", "k", "j")
	p.wants("the second row", `document.activeElement.dataset.row === "1"`)
	p.press(enter)
	p.wants("a transaction", `location.hash.length > 30 && document.querySelector("svg.timeline")`)
	p.press(escape)
	p.reads("h1", "Transactions")
	p.press("/")
	p.wants("the search", `document.activeElement.id === "find"`)
	p.eval(`document.activeElement.value = ""`) // the driver types what a browser would not: the shortcut
	p.press(s.commit[:23])
	p.wants("the one", `document.querySelectorAll(".list .trow").length >= 1 && [...document.querySelectorAll(".list .trow code")].every((c) => c.textContent.startsWith("`+s.commit[:23]+`"))`)
	p.press(escape)
	p.press("g", "t")

	// Everything can be reached by tab, in the order in which it is read, and shows it.
	p.press("g", "p")
	p.run(chromedp.Reload())
	p.reads("h1", "Participants")
	p.reads("article", "Check")
	var seen []string
	for range 30 {
		p.press(tabKey)
		name := p.eval(`(() => { const e = document.activeElement; return e === document.body ? "" : getComputedStyle(e).outlineStyle + " " + (e.getAttribute("aria-label") || e.textContent || e.id).trim(); })()`)
		seen = append(seen, fmt.Sprint(name))
	}
	all := strings.Join(seen, "\n")
	last := -1
	for _, want := range []string{"Skip to content", "decree: overview", "Overview", "Transactions", "Participants", "Cluster", "Change between light and dark", "Keyboard shortcuts", "Check", "Remove…"} {
		at := strings.Index(all, want)
		if at < last || at < 0 {
			t.Errorf("%q is not reached by tab in its turn:\n%s", want, all)
		}
		last = at
	}
	if strings.Contains(all, "none ") {
		t.Errorf("the focus can't be seen:\n%s", all)
	}
}

func actions(t *testing.T, x *trio, browser ctx, home string, s stories) {
	p := open(t, browser, home+"#/participants", desk)
	p.run(chromedp.Click("#remove-archive", chromedp.ByQuery))
	p.reads("dialog", "Type archive to go on")
	p.run(chromedp.SendKeys("dialog input[name=reason]", evil[:30], chromedp.ByQuery),
		chromedp.SendKeys("dialog input[name=typed]", "ledger", chromedp.ByQuery), chromedp.Click("dialog button.danger", chromedp.ByQuery))
	p.reads("dialog .wrong", "That is not archive.")
	p.run(chromedp.SetValue("dialog input[name=typed]", "archive", chromedp.ByQuery), chromedp.Click("dialog button.danger", chromedp.ByQuery))
	p.wants("four participants", `!document.querySelector("dialog") && document.querySelectorAll("article").length === 4`)

	open := strings.TrimSpace(x.decree("tx", "begin", "--timeout", "10m", "-q"))
	await(t, "the node of the page to know it", func() bool { return x.api("/v1/transactions/"+open, new(any)) == nil })
	p.goTo("#/tx/" + open)
	p.reads("h1", "Enlisting branches")
	p.run(chromedp.Click(".danger-quiet", chromedp.ByQuery),
		chromedp.SendKeys("dialog input[name=reason]", "a test", chromedp.ByQuery),
		chromedp.SendKeys("dialog input[name=typed]", open[len(open)-6:], chromedp.ByQuery), chromedp.Click("dialog button.danger", chromedp.ByQuery))
	p.reads("h1", "Aborted")
	p.reads(".reason", "a test")

	p.goTo("#/tx/" + s.damage)
	p.run(chromedp.Click("table .danger-quiet", chromedp.ByQuery))
	p.reads("dialog", "The decision stays as it is")
	p.run(chromedp.SetValue("dialog select[name=as]", "OUTCOME_ABORTED", chromedp.ByQuery),
		chromedp.SendKeys("dialog input[name=reason]", "a test", chromedp.ByQuery),
		chromedp.SendKeys("dialog input[name=typed]", s.damage[len(s.damage)-6:], chromedp.ByQuery), chromedp.Click("dialog button.danger", chromedp.ByQuery))
	p.reads("table", "resolved by an operator: aborted")

	before := x.leader()
	p.goTo("#/cluster")
	next := x.follower()
	p.wants("a button", fmt.Sprintf(`document.getElementById("lead-%s")`, next.id))
	p.reads("table", evil[:30])
	p.run(chromedp.Click("#lead-"+next.id, chromedp.ByQuery), chromedp.SendKeys("dialog input[name=reason]", "a test", chromedp.ByQuery), chromedp.SendKeys("dialog input[name=typed]", next.id, chromedp.ByQuery), chromedp.Click("dialog button.danger", chromedp.ByQuery))
	await(t, "the next leader", func() bool { return x.leader() == next })
	p.reads("article.leads", next.id)
	if before == next {
		t.Error("it led before")
	}
}

func looks(t *testing.T, browser ctx, home string, s stories) {
	for name, l := range map[string]look{"dark": night, "phone": phone, "still": {width: 1280, height: 800, still: true}, "tablet": {width: 800, height: 1000}} {
		p := open(t, browser, home, l)
		for _, hash := range []string{"#/", "#/tx", "#/tx/" + s.healed, "#/participants", "#/cluster"} {
			p.goTo(hash)
			p.wants("something to read", `document.querySelector("main h1")?.textContent.length > 3`)
			p.wants(name+": nothing wider than the window", `document.documentElement.scrollWidth <= innerWidth`)
			p.wants(name+": text that can be read on its ground", contrast)
		}
	}
	p := open(t, browser, home, desk)
	ground := `getComputedStyle(document.body).backgroundColor`
	light := p.eval(ground)
	p.press("d")
	if p.eval(ground) == light {
		t.Error("the toggle changes nothing")
	}
	p.run(chromedp.Reload())
	p.wants("the choice is kept", fmt.Sprintf(`%s !== %q`, ground, light))
	p.eval(`localStorage.clear()`)
}

// contrast holds what WCAG asks of text, 4.5 to 1, for all that is plain text on a plain
// ground.
const contrast = `(() => {
	const rgb = (c) => (c.match(/[\d.]+/g) ?? []).map(Number);
	const lum = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((n, v, i) => n + v * [0.2126, 0.7152, 0.0722][i], 0);
	const groundOf = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
	return [...document.querySelectorAll("main *, header *")].filter((e) => !e.closest("svg, .u-wrap") && e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).every((e) => {
		const [a, b] = [lum(rgb(getComputedStyle(e).color)), lum(groundOf(e))].sort((m, n) => n - m);
		return (a + 0.05) / (b + 0.05) >= 4.5 || (console.log("contrast", (a + 0.05) / (b + 0.05), e.outerHTML), false);
	});
})()`

const evil = `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>"'&` + "\u202e\u0000javascript:alert(1)"

// hostile serves the page with answers whose every text is an attack, beside a real reason
// that went through a real cluster.
func hostile(t *testing.T, x *trio, browser ctx) {
	id := x.submit("delivery", branch("orders", behaviour{Vote: "abort", Reason: evil}))
	p := open(t, browser, "http://"+x.leader().http+"/#/tx/"+id, desk)
	p.reads(".reason", "<img src=x onerror=")
	p.goTo("#/tx")
	p.reads(".list .why", "<img src=x onerror=")

	target, err := url.Parse("http://" + x.leader().http)
	if err != nil {
		t.Fatal(err)
	}
	real := httputil.NewSingleHostReverseProxy(target)
	real.FlushInterval = -1
	real.ModifyResponse = func(r *http.Response) error {
		if !strings.HasPrefix(r.Request.URL.Path, "/v1/") || strings.Contains(r.Request.URL.Path, "watch") {
			return nil
		}
		var body any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return err
		}
		text, err := json.Marshal(poison(body, ""))
		r.Body, r.ContentLength = http.NoBody, int64(len(text))
		r.Body = readCloser{strings.NewReader(string(text))}
		r.Header.Set("Content-Length", fmt.Sprint(len(text)))
		return err
	}
	proxy := httptest.NewServer(real)
	t.Cleanup(func() { proxy.CloseClientConnections(); proxy.Close() })
	p = open(t, browser, proxy.URL+"/#/", desk)
	for _, hash := range []string{"#/", "#/tx", "#/tx/" + id, "#/participants", "#/cluster"} {
		p.goTo(hash)
		if hash != "#/cluster" {
			p.reads("main", "<img src=x onerror=")
		}
		p.wants("no element from outside", `!window.pwned && !document.querySelector("main img, main script, [onerror]")`)
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// poison replaces every text that somebody outside may choose.
func poison(v any, name string) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = poison(v[k], k)
		}
	case []any:
		for i := range v {
			v[i] = poison(v[i], name)
		}
	case string:
		switch name {
		case "participant", "name", "detail", "driver", "who", "action", "target", "reason", "last_error", "vote_detail", "evidence", "error", "message", "raft_address", "version":
			return evil
		}
	}
	return v
}

// failover kills the leader while a page of another node is open, and then that node too.
func failover(t *testing.T, x *trio, browser ctx) {
	leader, other := x.leader(), x.follower()
	p := open(t, browser, "http://"+other.http+"/#/cluster", desk)
	p.reads("article.leads", leader.id)
	p.mayLose(true)
	x.kill(leader)
	p.wants("the next leader", fmt.Sprintf(`[...document.querySelectorAll("article.leads")].some((e) => !e.textContent.includes(%q))`, leader.id))
	p.wants("calm again", `!document.querySelector("#banner").textContent`)
	p.wants("the dead node", fmt.Sprintf(`[...document.querySelectorAll("article.node")].some((e) => e.textContent.includes(%q) && e.textContent.includes("no answer"))`, leader.id))
	x.restart(leader)
	p.wants("all three", `[...document.querySelectorAll("article.node")].every((e) => !e.textContent.includes("no answer"))`)

	x.kill(other)
	p.reads("#banner", "This node does not answer.")
	p.wants("what was known", `document.querySelectorAll("article.node").length === 3`)
	x.restart(other)
	p.wants("calm again", `!document.querySelector("#banner").textContent && !document.body.classList.contains("stale")`)
}

// A hundred thousand transactions: the list scrolls through all of them with some dozens of
// rows in the document, and no frame of it takes long.
func TestHundredThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute to fill")
	}
	const many = 100_000
	x := newTrio(t)
	await(t, "a hundred thousand transactions", func() bool {
		x.try("bench", "--clients", "512", "--duration", "10s", "--warmup", "0s", "--endpoints", x.endpoints(), "--participant", "ledger={}", "--participant", "archive={}") //nolint:errcheck
		var st status
		if err := x.api("/v1/cluster", &st); err != nil {
			return false
		}
		n, _ := st.Retained.Int64()
		t.Logf("%d transactions", n)
		return n >= many
	})
	p := open(t, newBrowser(t), "http://"+x.follower().http+"/#/tx", desk)
	p.wants("the first rows", `document.querySelectorAll(".list .trow").length > 10`)
	p.press(end)
	p.wants("the last of all", fmt.Sprintf(`document.querySelector(".list").getAttribute("aria-rowcount") >= %d`, many))
	p.wants("the last row", `Number(document.activeElement.dataset.row) + 1 === Number(document.querySelector(".list").getAttribute("aria-rowcount"))`)
	script := `(async () => {
		const list = document.querySelector(".list");
		let most = 0, rows = 0, before = performance.now();
		const times = [];
		for (let i = 0; i < 120; i++) {
			list.scrollTop = (list.scrollHeight - list.clientHeight) * ((i * 7919) % 120) / 120;
			await new Promise(requestAnimationFrame);
			const start = performance.now();
			list.dispatchEvent(new Event("scroll"));
			await new Promise(requestAnimationFrame);
			times.push(performance.now() - start);
			rows = Math.max(rows, document.querySelectorAll(".list .trow").length);
			if (!document.querySelector(".list .trow")) throw new Error("nothing is shown");
		}
		times.sort((a, b) => a - b);
		return { rows, median: times[60], most: times[119] };
	})()`
	var told struct{ Rows, Median, Most float64 }
	p.run(chromedp.Evaluate(script, &told, chromedp.EvalAsValue, awaited))
	t.Logf("%v rows in the document; a jump to elsewhere takes %.1f ms, %.1f at most", told.Rows, told.Median, told.Most)
	if told.Rows > 120 {
		t.Errorf("%v rows are in the document", told.Rows)
	}
	p.goTo("#/")
	p.goTo("#/tx?state=aborted")
	p.wants("an answer", `document.querySelector(".list .empty, .list .trow")`)
}
