package main

import (
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/spf13/cobra"

	"github.com/decree-tx/decree/cmd/internal/demo"
)

// demoCommand is behind `make demo`. It is hidden: it needs the repository's
// scripts beside it.
func (p *program) demoCommand() *cobra.Command {
	cfg := demo.Config{Out: p.out.w}
	cmd := &cobra.Command{
		Use:    "demo",
		Short:  "tell decree's story with real processes, and audit it",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Binary, err = os.Executable(); err != nil {
				return err
			}
			if !cmd.Flags().Changed("seed") {
				cfg.Seed = rand.Uint64()
			}
			fmt.Fprintf(cfg.Out, "seed %d\n", cfg.Seed)
			return demo.Run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&cfg.Script, "script", "scripts/cluster.sh", "the cluster's `script`")
	cmd.Flags().StringVar(&cfg.Dir, "dir", "", "keep data and logs in this `directory` (default: a temporary one)")
	cmd.Flags().Uint64Var(&cfg.Seed, "seed", 0, "makes the transfers repeat themselves")
	return cmd
}
