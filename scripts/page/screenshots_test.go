package page

import (
	"bytes"
	"flag"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "write pictures of every screen into this directory")

// stories are transactions that a talk would show.
type stories struct{ commit, retries, healed, no, damage, pending string }

func tell(x *trio) (s stories) {
	s.commit = x.submit("delivery",
		branch("orders", behaviour{PrepareMS: 9, CommitMS: 7}), branch("payments", behaviour{PrepareMS: 16, CommitMS: 11}), branch("shipping", behaviour{PrepareMS: 5, CommitMS: 5}))
	s.healed = x.submit("delivery",
		branch("orders", behaviour{PrepareMS: 6, CommitMS: 4}), branch("payments", behaviour{PrepareMS: 14, CommitMS: 6, FailCommits: 5, Error: "upstream connect error"}))
	s.no = x.submit("delivery",
		branch("orders", behaviour{PrepareMS: 8}), branch("payments", behaviour{PrepareMS: 21, Vote: "abort", Reason: "the balance of alice is 12, and 30 are asked for"}), branch("archive", behaviour{}))
	s.damage = x.submit("delivery",
		branch("orders", behaviour{PrepareMS: 4}), branch("shipping", behaviour{PrepareMS: 7, Heuristic: "abort", Detail: "rolled back by hand on Tuesday"}))
	s.pending = x.submit("decision",
		branch("orders", behaviour{PrepareMS: 6, CommitMS: 3}), branch("payments", behaviour{PrepareMS: 12, FailCommits: -1, Error: "connection refused"}), branch("ledger", behaviour{}))
	return s
}

// traffic keeps a cluster busy until the test ends.
func (x *trio) traffic(rate string) {
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
				x.try("bench", "--rate", rate, "--duration", "5s", "--warmup", "0s", "--endpoints", x.endpoints(),
					"--participant", "ledger={}", "--participant", "archive={}") //nolint:errcheck // a killed node costs it something
			}
		}
	}()
	x.t.Cleanup(func() { close(done); <-stopped })
}

func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("no directory for them: -screenshots")
	}
	x := newTrio(t)
	x.traffic("150")
	s := tell(x)
	browser := newBrowser(t)
	at := "http://" + x.leader().http
	views := []struct{ name, hash, ready, looks string }{
		{"overview", "#/", ".latest li:nth-child(8)", "light dark phone"},
		{"transactions", "#/tx", ".trow[data-row='5']", "light"},
		{"commit", "#/tx/" + s.commit, "svg.timeline .receipt", "light dark"},
		{"retries", "#/tx/" + s.healed, "svg.timeline .cross", "light dark"},
		{"abort", "#/tx/" + s.no, "svg.timeline .vote.no", "light"},
		{"damage", "#/tx/" + s.damage, "svg.timeline .receipt.bad", "dark"},
		{"pending", "#/tx/" + s.pending, "svg.timeline .next", "dark phone"},
		{"participants", "#/participants", "article .dot.bad", "light"},
		{"cluster", "#/cluster", "article.leads", "dark"},
	}
	var tabs []*tab
	for name, l := range map[string]look{"light": desk, "dark": night, "phone": phone} {
		p := open(t, browser, at+"/#/", l)
		tabs = append(tabs, p)
		p.wants("some history", "document.querySelectorAll('.latest li').length > 3")
		time.Sleep(12 * time.Second) // a chart needs some history to be worth a picture
		for _, v := range views {
			if !strings.Contains(v.looks, name) {
				continue
			}
			p.goTo(v.hash)
			p.run(chromedp.WaitReady(v.ready, chromedp.ByQuery))
			p.keep(v.name + "-" + name)
		}
	}

	for _, p := range tabs {
		p.mayLose(true)
	}
	leader := x.leader()
	x.kill(leader)
	x.leader()
	other := x.nodes[slices.IndexFunc(x.nodes, func(n *node) bool { return n != leader })]
	p := open(t, browser, "http://"+other.http+"/#/tx/"+s.pending, desk)
	p.run(chromedp.WaitReady("svg.timeline .next", chromedp.ByQuery))
	p.wants("a failed attempt of the next leader", `document.querySelectorAll("svg.timeline .cross").length > 1`)
	p.keep("takeover-light")
}

// keep writes a picture of the window.
func (p *tab) keep(name string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), small(p.t, p.shot()), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// small is a picture of 256 colours, those that it has most of, among them one of each
// kind: the page is of few, and the edges of its letters can bear it.
func small(t testing.TB, shot []byte) []byte {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	counts := map[color.NRGBA]int{}
	at := func(x, y int) color.NRGBA { return color.NRGBAModel.Convert(picture.At(x, y)).(color.NRGBA) }
	size := picture.Bounds()
	for y := range size.Dy() {
		for x := range size.Dx() {
			counts[at(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(counts), func(a, b color.NRGBA) int { return counts[b] - counts[a] })
	var palette color.Palette
	kinds := map[[3]uint8]bool{}
	const most = 96
	for i, c := range colours {
		kind := [3]uint8{c.R >> 4, c.G >> 4, c.B >> 4}
		if len(palette) < 256 && (i < most || !kinds[kind]) {
			kinds[kind] = true
			palette = append(palette, c)
		}
	}
	nearest := map[color.NRGBA]uint8{}
	for _, c := range colours {
		nearest[c] = uint8(palette.Index(c))
	}
	few := image.NewPaletted(size, palette)
	for y := range size.Dy() {
		for x := range size.Dx() {
			few.SetColorIndex(x, y, nearest[at(x, y)])
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, few); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
