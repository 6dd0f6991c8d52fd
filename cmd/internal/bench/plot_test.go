package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
)

// What is proven here: the plot is well-formed, stays within its frame, names every
// step and every line, and no name covers another.

// elements reads a picture's elements by their names.
func elements(t *testing.T, picture []byte) map[string][]xml.StartElement {
	t.Helper()
	all := map[string][]xml.StartElement{}
	decoder := xml.NewDecoder(bytes.NewReader(picture))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v in:\n%s", err, picture)
		}
		if start, ok := token.(xml.StartElement); ok {
			all[start.Name.Local] = append(all[start.Name.Local], start.Copy())
		}
	}
}

func attribute(t *testing.T, e xml.StartElement, name string) float64 {
	t.Helper()
	for _, a := range e.Attr {
		if a.Name.Local == name {
			n, err := strconv.ParseFloat(a.Value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

func TestPlot(t *testing.T) {
	r := exampleReport(Step{Clients: 1}, Step{Clients: 64}, Step{Clients: 1024})
	r.Setting.Participants = "<&>"
	picture := r.Plot()
	all := elements(t, picture)
	const lines, steps = 4, 3 // p50, p99, p99.9 and bare Raft's p50
	if len(all["polyline"]) != lines || len(all["circle"]) != lines*steps {
		t.Errorf("%d lines and %d points", len(all["polyline"]), len(all["circle"]))
	}
	for _, c := range all["circle"] {
		x, y := attribute(t, c, "cx"), attribute(t, c, "cy")
		if x < plotLeft || x > plotRight || y < latencyTop || y > latencyEnd {
			t.Errorf("a point at %g, %g is outside", x, y)
		}
	}
	for _, bar := range all["rect"][3:] {
		if y := attribute(t, bar, "y"); y < rateTop || y+attribute(t, bar, "height") > rateEnd+0.1 {
			t.Errorf("a bar from %g is outside", y)
		}
	}
	for _, want := range []string{">1,024<", "p99.9 45ms", "bare raft p50 7.5ms", "clients, closed loop", "&lt;&amp;&gt;", "prefers-color-scheme: dark"} {
		if !strings.Contains(string(picture), want) {
			t.Errorf("%q is not in it", want)
		}
	}
}

func TestPlotOfLittle(t *testing.T) {
	flat := exampleReport(Step{Rate: 500})
	flat.Steps[0].Summary = Summary{}
	for name, r := range map[string]*Report{"nothing": exampleReport(), "a step in which nothing happened": flat} {
		picture := r.Plot()
		elements(t, picture)
		if strings.Contains(string(picture), "NaN") || strings.Contains(string(picture), "Inf") {
			t.Errorf("%s is drawn at no place:\n%s", name, picture)
		}
	}
}

func TestLabelsStayApart(t *testing.T) {
	labels := apart([]label{{y: latencyEnd}, {y: latencyEnd - 1}, {y: 100}, {y: 101}, {y: 100}})
	for i := 1; i < len(labels); i++ {
		if labels[i].y-labels[i-1].y < labelGap {
			t.Errorf("labels at %g and %g", labels[i-1].y, labels[i].y)
		}
	}
	if last := labels[len(labels)-1].y; last > latencyEnd {
		t.Errorf("the last is at %g, below the panel", last)
	}
}

func TestNiceCeiling(t *testing.T) {
	for n, want := range map[float64]float64{0: 1, 1: 1, 1.5: 1.6, 3: 3, 4500: 5000, 8001: 10_000, 99_999: 100_000} {
		if got := niceCeiling(n); got != want {
			t.Errorf("%g: %g, want %g", n, got, want)
		}
	}
}
