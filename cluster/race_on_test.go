//go:build race

package cluster_test

// raceDetector says that everything takes several times as long.
const raceDetector = true
