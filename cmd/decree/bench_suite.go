package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	benchmark "github.com/decree-tx/decree/cmd/internal/bench"
	"github.com/decree-tx/decree/cmd/internal/bench/suite"
)

// benchSuiteCommand is behind `make bench`. It is hidden: its page lies in the
// repository.
func (p *program) benchSuiteCommand() *cobra.Command {
	cfg := suite.Config{Parse: parseBench, Run: benchmark.Run}
	var page string
	cmd := &cobra.Command{
		Use:    "suite",
		Short:  "measure all goals for decree's speed, and write the page about it",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.benchSuite(cmd.Context(), cfg, page)
		},
	}
	cmd.Flags().StringVar(&page, "page", "scripts/bench/README.md", "write the page to this `file`, and its picture beside it")
	cmd.Flags().BoolVar(&cfg.Quick, "quick", false, "measure everything for an instant, to see that it works")
	return cmd
}

// parseBench reads the flags of a bench, as the command does.
func parseBench(args []string) (benchmark.Config, error) {
	var f benchFlags
	cmd := &cobra.Command{}
	f.register(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		return benchmark.Config{}, err
	}
	return f.config()
}

func (p *program) benchSuite(ctx context.Context, cfg suite.Config, page string) (err error) {
	if cfg.Binary, err = os.Executable(); err != nil {
		return err
	}
	cfg.Version, cfg.Out = buildInfo().String(), p.out.w
	results, err := suite.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(page), 0o755); err != nil {
		return err
	}
	err = os.WriteFile(page, results.Page(), 0o644) //nolint:gosec // for everybody
	if ramp := results.Ramp(); ramp != nil {
		picture := filepath.Join(filepath.Dir(page), suite.Picture)
		err = errors.Join(err, os.WriteFile(picture, ramp.Plot(), 0o644)) //nolint:gosec // for everybody
	}
	return errors.Join(err, results.Err())
}
