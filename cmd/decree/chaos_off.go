//go:build !failpoints

package main

import "github.com/spf13/cobra"

// testCommands are commands that only test builds have.
func (p *program) testCommands() []*cobra.Command { return nil }
