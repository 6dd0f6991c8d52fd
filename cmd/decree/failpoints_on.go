//go:build failpoints

package main

// testVariables are DECREE_ variables that only test builds read.
var testVariables = []string{"DECREE_FAILPOINT_DIR"}
