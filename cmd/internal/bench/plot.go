package bench

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The picture's measures, in pixels of its own.
const (
	plotWidth  = 800
	plotHeight = 576
	plotLeft   = 76  // of both panels: room for their scales
	plotRight  = 640 // beside it stand the lines' names
	latencyTop = 90
	latencyEnd = 346
	rateTop    = 402
	rateEnd    = 512
	stepLabels = rateEnd + 18
	barWidth   = 44
	labelGap   = 15 // between two names
)

// plotStyle makes the picture read well on light and on dark ground. It brings its own
// ground: where it is shown, the page's may be either.
const plotStyle = `
  .ground { fill: #ffffff } .frame { stroke: #c9ced6; fill: none } .grid { stroke: #e6e9ee }
  text { fill: #1c2128; font: 13px system-ui, sans-serif } .title { font-size: 16px; font-weight: 600 }
  .quiet { fill: #5b6470; font-size: 12px } .end { text-anchor: end } .middle { text-anchor: middle }
  .line { fill: none; stroke-width: 2.2; stroke-linejoin: round } .spread { stroke-width: 1.4 }
  .p50 { stroke: #1f66d0 } .p99 { stroke: #b85a00 } .p999 { stroke: #a3246f } .bare { stroke: #6b7480; stroke-dasharray: 5 4 }
  .dot.p50, text.p50 { fill: #1f66d0 } .dot.p99, text.p99 { fill: #b85a00 } .dot.p999, text.p999 { fill: #a3246f }
  .dot.bare, text.bare { fill: #5b6470 } text.p50, text.p99, text.p999, text.bare { stroke: none } .bar { fill: #7fa9e8 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #14181e } .frame { stroke: #3b434e } .grid { stroke: #272d36 }
    text { fill: #e3e7ec } .quiet { fill: #9aa4b1 }
    .p50 { stroke: #74abff } .p99 { stroke: #ffa24d } .p999 { stroke: #f583c2 } .bare { stroke: #98a2ae }
    .dot.p50, text.p50 { fill: #74abff } .dot.p99, text.p99 { fill: #ffa24d } .dot.p999, text.p999 { fill: #f583c2 }
    .dot.bare, text.bare { fill: #9aa4b1 } .bar { fill: #3b68a8 }
  }
`

// Plot draws the steps: latencies on a logarithmic scale above, the rate below. With
// several rounds it shows medians, and the spread as upright strokes.
func (r *Report) Plot() []byte {
	p := &picture{steps: r.Steps}
	p.scale()
	p.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="latency and rate by load">`, plotWidth, plotHeight)
	p.put(`<style>%s</style>`, plotStyle)
	p.put(`<rect class="ground" width="%d" height="%d"/>`, plotWidth, plotHeight)
	p.text("title", 24, 32, "decree: latency and rate by load")
	what, how, _ := strings.Cut(r.Setting.describe(), "; ")
	p.text("quiet", 24, 52, what)
	p.text("quiet", 24, 70, "measured for "+how)
	p.latencies()
	p.rates()
	p.labelSteps()
	p.put(`</svg>`)
	return p.out.Bytes()
}

// picture is a plot in the making.
type picture struct {
	steps []StepReport
	out   bytes.Buffer

	low, high float64 // of the latencies shown, in microseconds
	most      float64 // of the rates
}

// series is one line of the latencies.
type series struct {
	class, name string
	of          func(Summary) Figure
}

func (p *picture) series() []series {
	all := []series{
		{"p999", "p99.9", func(s Summary) Figure { return s.Latency.P999 }},
		{"p99", "p99", func(s Summary) Figure { return s.Latency.P99 }},
		{"p50", "p50", func(s Summary) Figure { return s.Latency.P50 }},
	}
	if len(p.steps) > 0 && p.steps[0].Summary.Bare != nil {
		all = append(all, series{"bare", "bare raft p50", func(s Summary) Figure { return s.Bare.Latency.P50 }})
	}
	return all
}

// scale finds what the panels have to hold.
func (p *picture) scale() {
	p.low, p.high = math.Inf(1), 1
	for _, step := range p.steps {
		for _, s := range p.series() {
			f := s.of(step.Summary)
			p.low, p.high = min(p.low, max(f.Least, 1)), max(p.high, f.Most)
		}
		p.most = max(p.most, step.Summary.Throughput.Most)
	}
	p.low = min(p.low, p.high/2) // a line that lies flat has room around it
	p.low, p.high = p.low/1.2, p.high*1.2
}

func (p *picture) put(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }

func (p *picture) text(class string, x, y float64, text string) {
	var escaped strings.Builder
	xml.EscapeText(&escaped, []byte(text)) //nolint:errcheck // into memory
	p.put(`<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, escaped.String())
}

// across is the middle of a step's column.
func (p *picture) across(step int) float64 {
	return plotLeft + (float64(step)+0.5)*(plotRight-plotLeft)/float64(max(len(p.steps), 1))
}

// down is the height of a latency.
func (p *picture) down(us float64) float64 {
	share := math.Log(max(us, 1)/p.low) / math.Log(p.high/p.low)
	return latencyEnd - share*(latencyEnd-latencyTop)
}

func (p *picture) latencies() {
	for _, us := range logTicks(p.low, p.high) {
		y := p.down(us)
		p.put(`<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`, plotLeft, plotRight, y, y)
		p.text("quiet end", plotLeft-8, y+4, Micros(int64(us)))
	}
	p.put(`<rect class="frame" x="%d" y="%d" width="%d" height="%d"/>`, plotLeft, latencyTop, plotRight-plotLeft, latencyEnd-latencyTop)
	if len(p.steps) == 0 {
		return
	}
	var names []label
	for _, s := range p.series() {
		var path strings.Builder
		for i, step := range p.steps {
			f := s.of(step.Summary)
			x, y := p.across(i), p.down(f.Median)
			fmt.Fprintf(&path, "%.1f,%.1f ", x, y)
			if f.Least < f.Most {
				p.put(`<line class="spread %s" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, s.class, x, x, p.down(max(f.Least, 1)), p.down(f.Most))
			}
			p.put(`<circle class="dot %s" cx="%.1f" cy="%.1f" r="3.2"/>`, s.class, x, y)
		}
		p.put(`<polyline class="line %s" points="%s"/>`, s.class, strings.TrimSpace(path.String()))
		last := s.of(p.steps[len(p.steps)-1].Summary)
		names = append(names, label{s.class, s.name + " " + microsOf(last.Median), p.down(last.Median)})
	}
	for _, l := range apart(names) {
		p.text(l.class, plotRight+8, l.y+4, l.text)
	}
}

// label is the name of a line, at the height of its end.
type label struct {
	class, text string
	y           float64
}

// apart moves labels that would cover one another, the lower ones down, and the lot up
// where it would leave the panel.
func apart(labels []label) []label {
	slices.SortStableFunc(labels, func(a, b label) int { return int(math.Copysign(1, a.y-b.y)) })
	for i := 1; i < len(labels); i++ {
		labels[i].y = max(labels[i].y, labels[i-1].y+labelGap)
	}
	bottom := float64(latencyEnd)
	for i := len(labels) - 1; i >= 0; i-- {
		labels[i].y = min(labels[i].y, bottom)
		bottom = labels[i].y - labelGap
	}
	return labels
}

func (p *picture) rates() {
	top := niceCeiling(p.most)
	for _, share := range []float64{0, 0.5, 1} {
		y := rateEnd - share*(rateEnd-rateTop)
		p.put(`<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`, plotLeft, plotRight, y, y)
		p.text("quiet end", plotLeft-8, y+4, Thousands(share*top))
	}
	p.put(`<rect class="frame" x="%d" y="%d" width="%d" height="%d"/>`, plotLeft, rateTop, plotRight-plotLeft, rateEnd-rateTop)
	width := min(barWidth, 0.6*(plotRight-plotLeft)/float64(max(len(p.steps), 1)))
	for i, step := range p.steps {
		rate := step.Summary.Throughput.Median
		height := rate / top * (rateEnd - rateTop)
		p.put(`<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, p.across(i)-width/2, rateEnd-height, width, height)
		p.text("quiet middle", p.across(i), rateTop-8, Thousands(rate))
	}
	p.text("quiet", plotRight+8, rateTop-8, "tx/s answered")
}

// labelSteps names the columns.
func (p *picture) labelSteps() {
	what := "clients, closed loop"
	for i, step := range p.steps {
		text := Thousands(float64(step.Clients))
		if step.open() {
			text, what = Thousands(step.Rate)+"/s", "begun a second, open loop"
		}
		p.text("quiet middle", p.across(i), stepLabels, text)
	}
	p.text("quiet middle", (plotLeft+plotRight)/2, stepLabels+24, what)
}

// logTicks are 1, 2 and 5 times the powers of ten between two latencies.
func logTicks(low, high float64) []float64 {
	var ticks []float64
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high; power *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if t := m * power; t >= low && t <= high {
				ticks = append(ticks, t)
			}
		}
	}
	return ticks
}

// niceCeiling is a round number that is not far above n, and of which the half is round
// too.
func niceCeiling(n float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(max(n, 1))))
	for _, m := range []float64{1, 1.2, 1.6, 2, 3, 4, 5, 6, 8} {
		if m*power >= n {
			return m * power
		}
	}
	return 10 * power
}
