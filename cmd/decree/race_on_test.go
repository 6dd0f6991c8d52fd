//go:build race

package main

// raceEnabled has the child processes built as this test is.
const raceEnabled = true
