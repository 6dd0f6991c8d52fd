package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cmd/internal/metrics"
	"github.com/decree-tx/decree/transport/client"
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

const versionHelp = `Shows the version of this binary: its module's, the commit that it was built from and
that commit's time, the Go release and the platform.

Where nodes are named, by --endpoints or DECREE_ENDPOINTS, it shows theirs as well, and
warns where they are not all the same: a cluster should be of mixed versions only while
it is upgraded, node by node.`

// versionPatience is how long nodes are waited for: the binary's own version should not
// wait long for them.
const versionPatience = 3 * time.Second

func (p *program) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "show the version of this binary, and of the nodes",
		Long:    versionHelp,
		Example: "  decree version\n  decree version --endpoints 10.0.0.1:7101,10.0.0.2:7101,10.0.0.3:7101",
		Args:    cobra.NoArgs,
	}
	p.dial.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("endpoints") && os.Getenv(endpointsEnv) == "" {
			return p.showVersion(buildInfo(), nil)
		}
		if !cmd.Flags().Changed("patience") {
			p.dial.patience = versionPatience
		}
		return p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			return p.showVersion(buildInfo(), p.askAll(ctx, c))
		})(cmd, args)
	}
	return cmd
}

// nodeVersion is what one endpoint runs.
type nodeVersion struct {
	Endpoint string `json:"endpoint"`
	Node     string `json:"node,omitempty"`
	Version  string `json:"version,omitempty"`
	Error    string `json:"error,omitempty"`
}

func (p *program) showVersion(b provenance, views []nodeView) error {
	var nodes []nodeVersion
	versions := map[string]bool{}
	for _, v := range views {
		n := nodeVersion{Endpoint: v.endpoint, Node: v.status.GetNode(), Version: v.status.GetVersion()}
		if v.err != nil {
			n.Error = strings.TrimPrefix(v.err.Error(), "decree: ")
		} else {
			versions[n.Version] = true
		}
		nodes = append(nodes, n)
	}
	mixed := len(versions) > 1
	if p.out.format == formatJSON {
		p.out.object(struct {
			provenance
			Nodes []nodeVersion `json:"nodes,omitempty"`
			Mixed bool          `json:"mixed,omitempty"`
		}{b, nodes, mixed})
	} else {
		p.versionLines(b, nodes, mixed)
	}
	if len(views) > 0 && len(versions) == 0 {
		return noneAnswered(views)
	}
	return nil
}

func (p *program) versionLines(b provenance, nodes []nodeVersion, mixed bool) {
	p.out.linef("decree %s %s %s", b.String(), b.Go, b.Platform)
	if b.Revision != "" {
		p.out.linef("built from commit %s of %s", b.Revision, b.Time)
	}
	if len(nodes) == 0 {
		return
	}
	var rows [][]string
	for _, n := range nodes {
		rows = append(rows, []string{n.Node, n.Endpoint, n.Version, n.Error})
	}
	p.out.linef("")
	p.out.table([]string{"NODE", "ENDPOINT", "VERSION", "ERROR"}, rows)
	if mixed {
		p.warn("the nodes run different versions: finish the upgrade, node by node")
	}
}

// metricsBuild is what monitoring is told of the binary.
func metricsBuild() metrics.Build {
	b := buildInfo()
	return metrics.Build{Version: b.String(), Revision: b.Revision, Go: b.Go}
}

// noneAnswered joins the errors of all endpoints.
func noneAnswered(views []nodeView) error {
	var errs []error
	for _, v := range views {
		errs = append(errs, v.err)
	}
	return errors.Join(errs...)
}
