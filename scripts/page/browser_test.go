package page

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// tab is a page in a real browser, with a memory of what it complained about.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu         sync.Mutex
	complaints []string
	offline    bool // a node is down on purpose: requests may fail
}

// newBrowser starts Chromium: CHROMIUM, or what it is called on the PATH.
func newBrowser(t testing.TB) context.Context {
	t.Helper()
	path := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path == "" {
			path, _ = exec.LookPath(name)
		}
	}
	if path == "" {
		t.Fatal("Chromium is not here: scripts/page/chromium.sh installs it where it may")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, // all it loads is ours
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(patience),
		chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("hide-scrollbars", false))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	quiet := func(string, ...any) {} // it complains of events that are newer than it
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(quiet))
	t.Cleanup(cancel)
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx
}

type look struct {
	width, height int
	dark, phone   bool
	still         bool // prefers-reduced-motion
	refused       bool // requests may fail
}

var (
	desk  = look{width: 1280, height: 860}
	night = look{width: 1280, height: 860, dark: true}
	phone = look{width: 390, height: 844, phone: true}
)

// open opens a tab. When the test ends, nothing may have gone wrong in it.
func open(t testing.TB, browser context.Context, url string, l look) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(cancel)
	p := &tab{t: t, ctx: ctx, offline: l.refused}
	chromedp.ListenTarget(ctx, p.hear)
	scheme, motion := "light", "no-preference"
	if l.dark {
		scheme = "dark"
	}
	if l.still {
		motion = "reduce"
	}
	p.run(
		runtime.Enable(), log.Enable(),
		emulation.SetDeviceMetricsOverride(int64(l.width), int64(l.height), 1, l.phone),
		emulation.SetTouchEmulationEnabled(l.phone),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
		}),
		chromedp.ActionFunc(func(ctx context.Context) error {
			_, err := cdppage.AddScriptToEvaluateOnNewDocument(`
				window.violations = [];
				addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective + " " + e.blockedURI + " " + e.sample));`).Do(ctx)
			return err
		}),
		chromedp.Navigate(url))
	t.Cleanup(p.wantPeace)
	return p
}

func (p *tab) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		p.complaints = append(p.complaints, "exception: "+e.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning || e.Type == runtime.APITypeAssert {
			p.complaints = append(p.complaints, fmt.Sprintf("console.%s: %s", e.Type, e.Args[0].Value))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError && !(p.offline && e.Entry.Source == log.SourceNetwork) {
			p.complaints = append(p.complaints, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	}
}

// wantPeace checks that nothing was thrown, logged as an error, or against the policy.
func (p *tab) wantPeace() {
	var violations []string
	if err := chromedp.Run(p.ctx, chromedp.Evaluate("window.violations", &violations)); err != nil {
		p.t.Errorf("the tab does not answer at its end: %v", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range append(p.complaints, violations...) {
		p.t.Errorf("the page complains: %s", v)
	}
}

func (p *tab) mayLose(requests bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offline = requests
}

func (p *tab) run(actions ...chromedp.Action) {
	p.t.Helper()
	if err := chromedp.Run(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// text is what can be read, in one line.
func (p *tab) text(selector string) string {
	p.t.Helper()
	var s string
	p.run(chromedp.Evaluate(fmt.Sprintf(`[...document.querySelectorAll(%q)].map((e) => e.innerText ?? e.textContent).join(" ").replace(/\s+/g, " ")`, selector), &s))
	return s
}

func (p *tab) eval(script string) any {
	p.t.Helper()
	var v any
	p.run(chromedp.Evaluate(script, &v))
	return v
}

// wants waits until something holds in the page, as a script says it.
func (p *tab) wants(what, script string) {
	p.t.Helper()
	end := time.Now().Add(patience / 2)
	for p.eval("Boolean("+script+")") != true {
		if time.Now().After(end) {
			p.t.Fatalf("waited in vain for %s (%s); the page says: %.1500s", what, script, p.text("body"))
		}
		time.Sleep(30 * time.Millisecond) // nothing announces it
	}
}

// reads waits until words can be read.
func (p *tab) reads(selector, words string) {
	p.t.Helper()
	p.wants(fmt.Sprintf("%q in %s", words, selector),
		fmt.Sprintf(`[...document.querySelectorAll(%q)].some((e) => (e.innerText ?? e.textContent).replace(/\s+/g, " ").includes(%q))`, selector, words))
}

func (p *tab) press(keys ...string) {
	p.t.Helper()
	for _, k := range keys {
		p.run(chromedp.KeyEvent(k))
	}
}

func (p *tab) goTo(hash string) {
	p.t.Helper()
	p.eval(fmt.Sprintf("location.hash = %q", hash))
}

// shot takes a picture of the window.
func (p *tab) shot() []byte {
	p.t.Helper()
	var png []byte
	p.run(chromedp.CaptureScreenshot(&png))
	return png
}

const (
	escape = kb.Escape
	enter  = kb.Enter
	tabKey = kb.Tab
	end    = kb.End
)

// newTxID makes a UUIDv7 of this moment.
func newTxID() string {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(err)
	}
	ms := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint32(id[:4], uint32(ms>>16))
	binary.BigEndian.PutUint16(id[4:6], uint16(ms))
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	h := hex.EncodeToString(id[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// ctx is a browser.
type ctx = context.Context

// awaited waits for a promise's value.
func awaited(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }
