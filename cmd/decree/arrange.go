package main

import "github.com/spf13/cobra"

// The groups in which help lists the commands, by what somebody wants to do.
var groups = []struct {
	id, title string
	commands  []string
}{
	{"run", "Run it:", []string{"server", "dev"}},
	{"use", "Use it:", []string{"tx", "participant"}},
	{"operate", "Operate it:", []string{"cluster", "config", "doctor", "cert", "token", "audit", "health", "log-level", "snapshot", "recover"}},
	{"try", "Try it hard:", []string{"bank", "bench"}},
}

// arrange puts the commands below root into their groups.
func (p *program) arrange(root *cobra.Command) {
	of := map[string]string{}
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, name := range g.commands {
			of[name] = g.id
		}
	}
	for _, cmd := range root.Commands() {
		cmd.GroupID = of[cmd.Name()]
	}
	root.SetOut(p.out.w) // cobra's completion command writes to what is set by now
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Short = "show help about any command"
		case "completion":
			cmd.Short = "print the script with which a shell completes commands and live names"
			for _, shell := range cmd.Commands() {
				shell.Short = "print the script for " + shell.Name()
			}
		}
	}
}
