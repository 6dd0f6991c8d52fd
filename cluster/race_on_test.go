//go:build race

package cluster

// raceDetector says that everything takes several times as long.
const raceDetector = true
