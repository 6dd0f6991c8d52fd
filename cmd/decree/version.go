package main

import (
	"cmp"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cmd/internal/metrics"
)

// provenance is what the binary knows of how it was made.
type provenance struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"` // of the revision
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func buildInfo() provenance {
	b := provenance{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = cmp.Or(info.Main.Version, "(devel)")
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String is the version as nodes tell it to one another and to people.
func (b provenance) String() string {
	s := b.Version
	if b.Revision != "" && b.Version == "(devel)" {
		s += " " + b.Revision[:min(12, len(b.Revision))]
	}
	if b.Modified {
		s += " modified"
	}
	return s
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "show the version of this binary",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := buildInfo()
			if p.out.format == formatJSON {
				p.out.object(b)
				return nil
			}
			p.out.linef("decree %s %s %s", b.String(), b.Go, b.Platform)
			return nil
		},
	}
}

// metricsBuild is what monitoring is told of the binary.
func metricsBuild() metrics.Build {
	b := buildInfo()
	return metrics.Build{Version: b.String(), Revision: b.Revision, Go: b.Go}
}
