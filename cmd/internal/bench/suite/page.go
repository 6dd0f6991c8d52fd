package suite

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/decree-tx/decree/cmd/internal/bench"
)

// Picture is the name of the file beside the page with the ramp's plot.
const Picture = "ramp.svg"

// Page is the results in Markdown.
func (r *Results) Page() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# What a transaction costs, measured

%[1]smake bench%[1]s writes this page: every figure is from one run of it, on one machine. The
commands below measure each part again; %[1]sdecree bench --help%[1]s says what they do.

- version: %[2]s
- machine: %[3]s
- measured: %[4]s, in %[5]s
`, "`", r.Version, r.machine(), r.Started.UTC().Format("2006-01-02 15:04 MST"), r.Took.Round(time.Second))
	if r.Quick {
		b.WriteString("\nThis was a quick run, to see that everything works. Its figures mean nothing.\n")
	}
	r.goals(&b)
	for _, s := range r.sections {
		r.section(&b, s)
	}
	return b.Bytes()
}

// machine is where the runs took place, as the first that was measured tells.
func (r *Results) machine() string {
	for _, s := range r.sections {
		for _, one := range s.runs {
			if report := r.reports[one.name]; report != nil {
				return report.Machine.String()
			}
		}
	}
	return "unknown: nothing was measured"
}

func (r *Results) goals(b *bytes.Buffer) {
	b.WriteString(`
## Goals

Numbers are those of the goals for decree's speed. A ratio is of two measurements in one
round; a range in parentheses is the least and the most of several rounds. Goal 6, a
million retained transactions, is not for a load generator to measure.

| goal | what | wanted | measured | met |
|---|---|---|---|---|
`)
	for _, g := range goals() {
		v, judged := r.ruling(g)
		met := "yes"
		switch {
		case !judged:
			v.measured, met = "its run failed", "-"
		case !v.met:
			met = "**no**"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", g.number, g.what, g.wanted, v.measured, met)
	}
}

func (r *Results) section(b *bytes.Buffer, s section) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n```sh\n", s.title, s.about)
	for _, one := range s.runs {
		fmt.Fprintf(b, "decree bench %s # %s\n", one.flags, one.name)
	}
	b.WriteString("```\n")
	loads := 0
	for _, one := range s.runs {
		report := r.reports[one.name]
		switch {
		case report == nil:
			fmt.Fprintf(b, "\n%s failed: %s\n", one.name, oneLine(r.failures[one.name]))
		case len(report.Steps) == 0:
			r.block(b, one.name, report)
		default:
			loads += len(report.Steps)
		}
	}
	if loads > 0 {
		r.table(b, s)
	}
	for _, one := range s.runs {
		if one.name == pictured && r.reports[one.name] != nil {
			fmt.Fprintf(b, "\n![latency and rate by load](%s)\n", Picture)
		}
	}
}

// block shows a report as people read it on a terminal, without what the page has said.
func (r *Results) block(b *bytes.Buffer, name string, report *bench.Report) {
	var text bytes.Buffer
	report.Write(&text) //nolint:errcheck // into memory
	fmt.Fprintf(b, "\n%s:\n\n```\n", name)
	for line := range strings.Lines(text.String()) {
		if !strings.HasPrefix(line, "machine ") {
			b.WriteString(line)
		}
	}
	b.WriteString("```\n")
}

// table has a line for every load of a section.
func (r *Results) table(b *bytes.Buffer, s section) {
	b.WriteString("\n| run | load | tx/s | branches/s | p50 | p99 | p99.9 | CPU µs/tx | entries/tx | log bytes/tx | disk bytes/tx | bare entries/s | bare p50 | p50 ratio |\n" +
		"|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, one := range s.runs {
		report := r.reports[one.name]
		if report == nil {
			continue
		}
		for _, step := range report.Steps {
			m := step.Summary
			cells := []string{
				one.name, step.Step.String(), bench.Thousands(m.Throughput.Median),
				bench.Thousands(m.Throughput.Median * float64(report.Setting.Branches)),
				micros(m.Latency.P50.Median), micros(m.Latency.P99.Median), micros(m.Latency.P999.Median),
				fmt.Sprintf("%.0f", m.CPU.All), fmt.Sprintf("%.3f", m.Entries.Median), bench.Thousands(m.Bytes.Median),
				bench.Thousands(m.DiskBytes.Median), "-", "-", "-",
			}
			if m.Bare != nil {
				cells = append(cells[:len(cells)-3], bench.Thousands(m.Bare.Throughput.Median), micros(m.Bare.Latency.P50.Median),
					spread(m.Bare.P50Ratio, "%.2f"))
			}
			fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
		}
	}
}

// oneLine is an error without the logs that may follow it.
func oneLine(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}
